//! What Entra's token endpoint answers when it issues no token, kept as data and without what changes every time.

use http::StatusCode;
use mcp_entra_policy::FederatedIdentity;
use serde::Deserialize;

use super::FederatedTokenError;
use super::next_step::next_step;
use crate::http_client::ExchangeError;

/// Why there is no token from Entra.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StsError {
    /// There is no credential to exchange.
    #[error(transparent)]
    FederatedToken(#[from] FederatedTokenError),
    /// Entra could not be asked.
    #[error(
        "Entra's token endpoint {url} does not answer ({source}); check the network, its proxies and the trust bundle; the server tries again"
    )]
    Unreachable {
        /// The endpoint.
        url: String,
        /// What went wrong.
        source: ExchangeError,
    },
    /// The answer is neither a token nor an error of Entra.
    #[error(
        "{url} answered HTTP {status} with something that is not Entra's; check entra.authority, and whether a proxy answers in Entra's place"
    )]
    NotEntra {
        /// The endpoint.
        url: String,
        /// The answer's status.
        status: StatusCode,
    },
    /// Entra said no.
    #[error("{0}")]
    Refused(Box<EntraRefusal>),
}

/// Entra's refusal to issue a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntraRefusal {
    /// OAuth's `error`: what programs branch on.
    pub error: String,
    /// Entra's `suberror`, as `consent_required`.
    pub suberror: Option<String>,
    /// The AADSTS numbers: what people search for.
    pub codes: Vec<u64>,
    /// Entra's text without trace id, correlation id and time stamp.
    pub description: String,
    /// What to do about it.
    pub next_step: String,
}

/// Who asked: what the next step depends on besides the codes.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) tenant_id: &'a str,
    pub(super) client_id: &'a str,
    /// What the credential says of itself, if it could be read.
    pub(super) identity: Option<&'a FederatedIdentity>,
}

/// Entra's error document. Numbers may be strings, and other members come and go.
#[derive(Deserialize)]
struct ErrorDocument {
    error: String,
    suberror: Option<String>,
    #[serde(default)]
    error_codes: Vec<serde_json::Value>,
    #[serde(default)]
    error_description: String,
}

impl EntraRefusal {
    /// The refusal in this body, if there is one.
    pub(super) fn parse(body: &[u8], asker: Asker<'_>) -> Option<Self> {
        let document: ErrorDocument = serde_json::from_slice(body).ok()?;
        let mut codes: Vec<u64> = document.error_codes.iter().filter_map(number).collect();
        let description = lasting_part(&document.error_description);
        if codes.is_empty() {
            codes.extend(code_in_text(&description));
        }
        let mut refusal = Self {
            error: document.error,
            suberror: document.suberror.filter(|suberror| !suberror.is_empty()),
            codes,
            description,
            next_step: String::new(),
        };
        refusal.next_step = next_step(&refusal, asker);
        Some(refusal)
    }

    /// Whether consent for the Graph permissions is missing (AADSTS65001).
    pub fn consent_missing(&self) -> bool {
        self.suberror.as_deref() == Some("consent_required") || self.codes.contains(&65001)
    }
}

impl std::fmt::Display for EntraRefusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = if self.description.is_empty() { &self.error } else { &self.description };
        write!(formatter, "Entra: {said} Next: {}", self.next_step)
    }
}

fn number(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Entra's text up to what it says of this one request, on one line: a status that holds it changes only when the
/// answer does.
fn lasting_part(description: &str) -> String {
    let end = ["Trace ID:", "Correlation ID:", "Timestamp:"].iter().filter_map(|tail| description.find(tail)).min();
    let lasting = end.and_then(|end| description.get(..end)).unwrap_or(description);
    lasting.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn code_in_text(description: &str) -> Option<u64> {
    let rest = description.strip_prefix("AADSTS")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ASKER: Asker<'_> = Asker { tenant_id: "tenant", client_id: "client", identity: None };

    #[test]
    fn what_changes_with_every_request_is_not_part_of_the_text() {
        let body = |trace: &str| {
            json!({
                "error": "invalid_client",
                "error_codes": [700213],
                "error_description": format!("AADSTS700213: No matching\r\nrecord. Trace ID: {trace} Correlation ID: {trace} Timestamp: {trace}"),
            })
        };
        let one = EntraRefusal::parse(body("1").to_string().as_bytes(), ASKER).unwrap();
        let two = EntraRefusal::parse(body("2").to_string().as_bytes(), ASKER).unwrap();
        assert_eq!(one.description, "AADSTS700213: No matching record.");
        assert_eq!(one, two);
    }

    #[test]
    fn codes_are_read_as_numbers_as_strings_and_from_the_text() {
        for body in [
            json!({ "error": "invalid_grant", "error_codes": [65001] }),
            json!({ "error": "invalid_grant", "error_codes": ["65001"] }),
            json!({ "error": "invalid_grant", "error_description": "AADSTS65001: The user …" }),
        ] {
            let refusal = EntraRefusal::parse(body.to_string().as_bytes(), ASKER).unwrap();
            assert_eq!(refusal.codes, [65001], "{body}");
            assert!(refusal.consent_missing());
        }
    }

    #[test]
    fn what_is_not_an_error_document_is_not_taken_for_one() {
        assert_eq!(EntraRefusal::parse(b"<html>", ASKER), None);
        assert_eq!(EntraRefusal::parse(br#"{"access_token":"x"}"#, ASKER), None);
    }
}
