//! What a client without a sufficient token is told: the `WWW-Authenticate` header of RFC 6750 and RFC 9728.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mcp_entra_policy::ServerConfiguration;
use serde_json::json;

use super::metadata;

/// Tells clients where the metadata is and which scopes to ask Entra for.
pub struct Challenge {
    /// Absent for a server without a public URL: it has no address that a client could fetch metadata from, so that its
    /// clients must be told the tenant and scope by other means.
    resource_metadata: Option<String>,
    /// Fully qualified, separated by spaces.
    scope: String,
}

impl Challenge {
    /// The challenge of this server.
    pub fn new(configuration: &ServerConfiguration) -> Self {
        Self {
            resource_metadata: metadata::document_url(configuration),
            scope: configuration.qualified_scopes().join(" "),
        }
    }

    /// 401 to a request without a token: no error code, for nothing went wrong (RFC 6750 section 3.1).
    pub fn token_missing(&self) -> Response {
        let message = "send an access token of Microsoft Entra ID for this server as Authorization: Bearer";
        self.response(StatusCode::UNAUTHORIZED, None, message)
    }

    /// 400 to an Authorization header that cannot be understood.
    pub fn invalid_request(&self, description: &str) -> Response {
        self.response(StatusCode::BAD_REQUEST, Some("invalid_request"), description)
    }

    /// 401 to a token that is not accepted.
    pub fn invalid_token(&self, description: &str) -> Response {
        self.response(StatusCode::UNAUTHORIZED, Some("invalid_token"), description)
    }

    /// 403 to a token that lacks a scope: the client can meet that by asking for it.
    pub fn insufficient_scope(&self, description: &str) -> Response {
        self.response(StatusCode::FORBIDDEN, Some("insufficient_scope"), description)
    }

    fn response(&self, status: StatusCode, error: Option<&str>, description: &str) -> Response {
        let body = match error {
            None => json!({ "message": description }),
            Some(error) => json!({ "error": error, "error_description": description }),
        };
        let mut response = (status, Json(body)).into_response();
        if let Ok(value) = HeaderValue::from_str(&self.header(error, description)) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }

    fn header(&self, error: Option<&str>, description: &str) -> String {
        let mut parameters = Vec::new();
        if let Some(error) = error {
            parameters.push(format!("error=\"{error}\""));
        }
        if let Some(url) = &self.resource_metadata {
            parameters.push(format!("resource_metadata=\"{url}\""));
        }
        parameters.push(format!("scope=\"{}\"", self.scope));
        if error.is_some() {
            parameters.push(format!("error_description=\"{}\"", quotable(description)));
        }
        format!("Bearer {}", parameters.join(", "))
    }
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
    use super::quotable;

    #[test]
    fn a_description_cannot_leave_its_quotes_or_its_line() {
        assert_eq!(quotable("a \"b\\\r\nX: ü"), "a 'b'??X: ?");
    }
}
