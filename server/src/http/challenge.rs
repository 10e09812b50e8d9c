//! What a client without a sufficient token is told: the `WWW-Authenticate` header of RFC 6750 and RFC 9728.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_entra_policy::ServerConfiguration;
use serde_json::json;

use super::metadata;

/// Tells clients where the metadata is and which scopes to ask Entra for.
pub struct Challenge {
    /// Absent for a server without a public URL: it has no address that a client could fetch metadata from, so that its
    /// clients must be told the tenant and scope by other means.
    resource_metadata: Option<String>,
    /// The required scopes, fully qualified.
    scopes: BTreeSet<String>,
    /// What qualifies a scope of this server.
    client_id: String,
}

/// What a challenge says besides where the metadata is.
#[derive(Default)]
struct Details<'a> {
    error: Option<&'static str>,
    description: &'a str,
    /// Scopes of this server, besides those that every request needs.
    scopes: Option<&'a BTreeSet<String>>,
    /// A claims request, encoded.
    claims: Option<String>,
}

impl Challenge {
    /// The challenge of this server.
    pub fn new(configuration: &ServerConfiguration) -> Self {
        Self {
            resource_metadata: metadata::document_url(configuration),
            scopes: configuration.qualified_scopes().into_iter().collect(),
            client_id: configuration.entra.client_id.clone(),
        }
    }

    /// 401 to a request without a token: no error code, for nothing went wrong (RFC 6750 section 3.1).
    pub fn token_missing(&self) -> Response {
        let description = "send an access token of Microsoft Entra ID for this server as Authorization: Bearer";
        self.response(StatusCode::UNAUTHORIZED, &Details { description, ..Details::default() })
    }

    /// 400 to an Authorization header that cannot be understood.
    pub fn invalid_request(&self, description: &str) -> Response {
        let error = Some("invalid_request");
        self.response(StatusCode::BAD_REQUEST, &Details { error, description, ..Details::default() })
    }

    /// 401 to a token that is not accepted.
    pub fn invalid_token(&self, description: &str) -> Response {
        let error = Some("invalid_token");
        self.response(StatusCode::UNAUTHORIZED, &Details { error, description, ..Details::default() })
    }

    /// 403 to a token that lacks a scope: the client can meet that by asking for it. All scopes that the operation needs
    /// are named at once, those of every request among them.
    pub fn insufficient_scope(&self, description: &str, scopes: &BTreeSet<String>) -> Response {
        let details =
            Details { error: Some("insufficient_scope"), description, scopes: Some(scopes), ..Details::default() };
        self.response(StatusCode::FORBIDDEN, &details)
    }

    /// 401 to a sign-in that did not satisfy an authentication context of Conditional Access: a client that declared so
    /// can ask Entra for these claims.
    pub fn insufficient_claims(&self, description: &str, context: &str) -> Response {
        let claims = Some(encoded_claims(context));
        let details = Details { error: Some("insufficient_claims"), description, claims, ..Details::default() };
        self.response(StatusCode::UNAUTHORIZED, &details)
    }

    fn response(&self, status: StatusCode, details: &Details<'_>) -> Response {
        let body = match details.error {
            None => json!({ "message": details.description }),
            Some(error) => json!({ "error": error, "error_description": details.description }),
        };
        let mut response = (status, Json(body)).into_response();
        if let Ok(value) = HeaderValue::from_str(&self.header(details)) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }

    fn header(&self, details: &Details<'_>) -> String {
        let mut parameters = Vec::new();
        if let Some(error) = details.error {
            parameters.push(format!("error=\"{error}\""));
        }
        if let Some(claims) = &details.claims {
            parameters.push(format!("claims=\"{claims}\""));
        }
        if let Some(url) = &self.resource_metadata {
            parameters.push(format!("resource_metadata=\"{url}\""));
        }
        let more = details.scopes.into_iter().flatten().map(|scope| format!("api://{}/{scope}", self.client_id));
        let scopes: BTreeSet<String> = self.scopes.iter().cloned().chain(more).collect();
        parameters.push(format!("scope=\"{}\"", Vec::from_iter(scopes).join(" ")));
        if details.error.is_some() {
            parameters.push(format!("error_description=\"{}\"", quotable(details.description)));
        }
        format!("Bearer {}", parameters.join(", "))
    }
}

/// A claims request for this authentication context. Clients decode it by either alphabet of base64, with padding or
/// without: of a length that needs none, ASCII text without `>`, `?` and `~` is the same in all.
fn encoded_claims(context: &str) -> String {
    let request = json!({ "access_token": { "acrs": { "essential": true, "value": context } } });
    let mut text = request.to_string();
    while !text.len().is_multiple_of(3) {
        text.push(' ');
    }
    URL_SAFE_NO_PAD.encode(text)
}

/// The characters that RFC 6750 section 3 allows in a description: printable ASCII without quotes and backslashes.
/// Parts of a description can come from a token.
fn quotable(description: &str) -> String {
    description
        .chars()
        .map(|character| match character {
            '"' | '\\' => '\'',
            ' '..='~' => character,
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use serde_json::{Value, json};

    use super::{encoded_claims, quotable};

    #[test]
    fn a_claims_request_is_read_alike_by_either_alphabet_of_base64() {
        for context in ["c1", "c25", "c99"] {
            let encoded = encoded_claims(context);
            let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
            let expected = json!({ "access_token": { "acrs": { "essential": true, "value": context } } });
            assert_eq!(read(URL_SAFE_NO_PAD.decode(&encoded).unwrap()), expected);
            assert_eq!(read(STANDARD.decode(&encoded).unwrap()), expected);
        }
    }

    #[test]
    fn a_description_cannot_leave_its_quotes_or_its_line() {
        assert_eq!(quotable("a \"b\\\r\nX: ü"), "a 'b'??X: ?");
    }
}
