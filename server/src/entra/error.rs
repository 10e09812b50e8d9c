//! Answers of Entra's token endpoint without a token, as data without the parts that change every time.
//!
//! Entra's text may name an account. So `Display` shows only codes and our own words, for logs and statuses. Only the
//! caller [sees Entra's text](StsError::their_words).

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use super::claims::{ClaimsChallenge, SignIn};
use super::diagnosis::{Asker, Said, is_transient};
use super::federated_token::FederatedTokenError;
use super::remedy::Remedy;
use crate::http_client::{Again, Answer, ExchangeError, retry_after};
use crate::token::SessionError;

/// Longest text of Entra that is kept, in characters.
const LONGEST_TEXT: usize = 2_000;
/// Longest code or id that is kept, in characters.
const LONGEST_WORD: usize = 100;

/// The reason why there is no token from Entra.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StsError {
    /// There is no credential to exchange.
    #[error(transparent)]
    FederatedToken(#[from] FederatedTokenError),
    /// The session has no token of Entra.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Entra did not answer.
    #[error(
        "Entra's token endpoint {url} does not answer ({source}); check the network, its proxies and the trusted CA certificates"
    )]
    Unreachable {
        /// The endpoint.
        url: String,
        /// The failure of the exchange.
        source: ExchangeError,
    },
    /// The answer is neither a token nor an error of Entra.
    #[error(
        "{url} answered HTTP {status}, but the answer is not from Entra; check the configured authority, and whether a proxy answers in Entra's place"
    )]
    NotEntra {
        /// The endpoint.
        url: String,
        /// The answer's status.
        status: StatusCode,
        /// Pause that the answer requests.
        retry_after: Option<Duration>,
    },
    /// Entra refused the request.
    #[error("{0}")]
    Refused(Box<EntraRefusal>),
    /// The person who runs this program must sign in first.
    #[error("{}", .refusal.as_ref().map_or_else(|| "not signed in. Next: sign in.".to_owned(), ToString::to_string))]
    SignInNeeded {
        /// The sign-in that helps.
        sign_in: SignIn,
        /// Entra's refusal without a sign-in. Absent if there was no token to ask with.
        refusal: Option<Box<EntraRefusal>>,
    },
    /// Entra's answer is unusable. The text has the reason and the next step.
    #[error("{0}")]
    NotUsable(String),
    /// The stored tokens now belong to another account.
    #[error(
        "another account has signed in since this program started; restart the MCP client to continue with that account"
    )]
    OtherAccount,
}

/// Entra's refusal to issue a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntraRefusal {
    /// OAuth's `error`, for programs.
    pub error: String,
    /// Entra's `suberror`, such as `consent_required`.
    pub suberror: Option<String>,
    /// The AADSTS numbers, for searches.
    pub codes: Vec<u64>,
    /// Entra's text without trace id, correlation id and time stamp.
    pub description: String,
    /// The correlation id, with which Microsoft's support finds the request.
    pub correlation_id: Option<String>,
    /// The remedy.
    pub remedy: Remedy,
    /// The next step for a person.
    pub next_step: String,
    /// Pause that Entra requests, from any of its headers.
    pub retry_after: Option<Duration>,
}

/// Entra's error document. Numbers may be strings, and other members vary.
#[derive(Deserialize)]
struct ErrorDocument {
    error: String,
    suberror: Option<String>,
    #[serde(default)]
    error_codes: Vec<serde_json::Value>,
    #[serde(default)]
    error_description: String,
    correlation_id: Option<String>,
    claims: Option<String>,
}

impl StsError {
    /// Returns the remedy.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::FederatedToken(_) => Remedy::Credential,
            Self::Session(SessionError::Ended) => Remedy::SignIn(SignIn::Anew),
            Self::Session(SessionError::Unavailable) | Self::Unreachable { .. } => Remedy::AskAgain,
            Self::NotEntra { status, .. } if is_transient(*status) => Remedy::AskAgain,
            Self::NotEntra { .. } => Remedy::Configuration,
            Self::Refused(refusal) => refusal.remedy.clone(),
            Self::SignInNeeded { sign_in, .. } => Remedy::SignIn(sign_in.clone()),
            Self::NotUsable(_) | Self::OtherAccount => Remedy::Configuration,
        }
    }

    /// Returns Entra's refusal, if it is one.
    pub fn refusal(&self) -> Option<&EntraRefusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::SignInNeeded { refusal, .. } => refusal.as_deref(),
            _ => None,
        }
    }

    /// Returns the sign-in that would help, if any.
    pub fn sign_in(&self) -> Option<SignIn> {
        match self.remedy() {
            Remedy::SignIn(sign_in) => Some(sign_in),
            _ => None,
        }
    }

    /// True if the same request would get the same answer for a while. An answer that is not Entra's proves nothing.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.remedy.is_lasting())
    }

    /// Returns the pause that Entra requests, if any.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotEntra { retry_after, .. } => *retry_after,
            _ => self.refusal()?.retry_after,
        }
    }

    /// Returns the pause as a sentence with a leading space, in whole seconds rounded up, or an empty text.
    pub(crate) fn pause(&self) -> String {
        let seconds = self.retry_after().map(|pause| pause.as_secs() + u64::from(pause.subsec_nanos() > 0));
        seconds.map(|seconds| format!(" Call again after {seconds} seconds.")).unwrap_or_default()
    }

    /// Returns Entra's own text, for the caller only.
    pub fn their_words(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.description.as_str()).filter(|text| !text.is_empty())
    }

    /// Returns the correlation id for Microsoft's support, if Entra answered.
    pub fn correlation_id(&self) -> Option<&str> {
        self.refusal()?.correlation_id.as_deref()
    }

    pub(super) fn again(&self) -> Again {
        match self.remedy() {
            Remedy::AskAgain => Again::After(self.retry_after()),
            _ => Again::Never,
        }
    }
}

impl EntraRefusal {
    /// Parses the refusal in this answer, if there is one.
    pub(super) fn read(answer: &Answer, asker: Asker<'_>) -> Option<Self> {
        let document = serde_json::from_slice(&answer.body).ok()?;
        Some(Self::of(document, answer.status, retry_after(&answer.headers, Timestamp::now()), asker))
    }

    /// Parses the refusal of an authorization request from the browser (RFC 6749 section 4.1.2.1).
    pub(super) fn of_authorization(error: &str, error_description: &str, asker: Asker<'_>) -> Self {
        let document = ErrorDocument {
            error: error.to_owned(),
            suberror: None,
            error_codes: Vec::new(),
            error_description: error_description.to_owned(),
            correlation_id: None,
            claims: None,
        };
        Self::of(document, StatusCode::BAD_REQUEST, None, asker)
    }

    fn of(document: ErrorDocument, status: StatusCode, retry_after: Option<Duration>, asker: Asker<'_>) -> Self {
        let mut codes: Vec<u64> = document.error_codes.iter().filter_map(number).collect();
        let description = lasting_part(&document.error_description);
        if codes.is_empty() {
            codes.extend(code_in_text(&description));
        }
        let suberror = document.suberror.filter(|suberror| !suberror.is_empty());
        let said = Said {
            status,
            error: &document.error,
            suberror: suberror.as_deref(),
            codes: &codes,
            claims: document.claims.as_deref().and_then(ClaimsChallenge::parse),
        };
        let (remedy, next_step) = said.diagnose(asker);
        Self {
            remedy,
            error: word(&document.error).unwrap_or_default(),
            suberror: suberror.as_deref().and_then(word),
            correlation_id: document.correlation_id.as_deref().and_then(word),
            codes,
            description,
            next_step,
            retry_after,
        }
    }
}

impl std::fmt::Display for EntraRefusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Entra: ")?;
        for code in &self.codes {
            write!(formatter, "AADSTS{code}: ")?;
        }
        formatter.write_str(if self.error.is_empty() { "no error code" } else { &self.error })?;
        if let Some(suberror) = &self.suberror {
            write!(formatter, ", {suberror}")?;
        }
        write!(formatter, ". Next: {}", self.next_step)
    }
}

/// Returns the text if it is a code or an id, not a sentence, address or name.
pub(crate) fn word(text: &str) -> Option<String> {
    let of_a_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (text.len() <= LONGEST_WORD && text.bytes().all(of_a_word)).then(|| text.to_owned())
}

fn number(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Returns Entra's text without the ids of this request, on one line. A status with this text changes only when the
/// answer does.
fn lasting_part(description: &str) -> String {
    let end = ["Trace ID:", "Correlation ID:", "Timestamp:"].iter().filter_map(|tail| description.find(tail)).min();
    let lasting = end.and_then(|end| description.get(..end)).unwrap_or(description);
    let on_one_line = lasting.split_whitespace().collect::<Vec<_>>().join(" ");
    on_one_line.chars().take(LONGEST_TEXT).collect()
}

fn code_in_text(description: &str) -> Option<u64> {
    let rest = description.strip_prefix("AADSTS")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::{Value, json};

    use super::*;

    const ASKER: Asker<'_> = Asker { tenant_id: "tenant", client_id: "client", identity: None, is_public: false };

    fn read(body: &str) -> Option<EntraRefusal> {
        let answer =
            Answer { status: StatusCode::BAD_REQUEST, headers: HeaderMap::new(), body: body.as_bytes().to_vec() };
        EntraRefusal::read(&answer, ASKER)
    }

    fn refusal(body: &Value) -> EntraRefusal {
        read(&body.to_string()).unwrap()
    }

    #[test]
    fn the_text_has_no_ids_or_times_of_a_request() {
        let body = |trace: &str| {
            json!({
                "error": "invalid_client",
                "error_codes": [700213],
                "error_description": format!("AADSTS700213: No matching\r\nrecord. Trace ID: {trace} Correlation ID: {trace} Timestamp: {trace}"),
            })
        };
        assert_eq!(refusal(&body("1")).description, "AADSTS700213: No matching record.");
        assert_eq!(refusal(&body("1")), refusal(&body("2")));
    }

    #[test]
    fn the_displayed_error_has_codes_and_own_words_and_keeps_entras_text_separate() {
        const ACCOUNT: &str = "alice@contoso.com";
        for (error, suberror, correlation_id) in
            [("invalid_grant", "basic_action", "5f0a"), (ACCOUNT, ACCOUNT, ACCOUNT), ("", "", "a sentence")]
        {
            let refusal = refusal(&json!({
                "error": error, "suberror": suberror, "correlation_id": correlation_id, "error_codes": [50105],
                "error_description": format!("AADSTS50105: The signed in user '{ACCOUNT}' is not assigned."),
            }));
            let error = StsError::Refused(Box::new(refusal));
            assert!(!error.to_string().contains(ACCOUNT), "{error}");
            assert!(error.to_string().starts_with("Entra: AADSTS50105"), "{error}");
            assert!(error.their_words().unwrap().contains(ACCOUNT));
            assert_eq!(error.correlation_id(), Some("5f0a").filter(|id| *id == correlation_id));
        }
    }

    #[test]
    fn codes_are_read_as_numbers_as_strings_and_from_the_text() {
        for body in [
            json!({ "error": "invalid_grant", "error_codes": [65001] }),
            json!({ "error": "invalid_grant", "error_codes": ["65001"] }),
            json!({ "error": "invalid_grant", "error_description": "AADSTS65001: The user …" }),
        ] {
            let refusal = refusal(&body);
            assert_eq!((refusal.codes.as_slice(), refusal.remedy), (&[65001][..], Remedy::Consent), "{body}");
        }
    }

    #[test]
    fn claims_are_json_in_a_string() {
        let claims = r#"{"access_token":{"acrs":{"essential":true,"value":"c1"}}}"#;
        let body = json!({ "error": "interaction_required", "claims": claims });
        let satisfying = SignIn::Satisfying(ClaimsChallenge::parse(claims).unwrap());
        assert_eq!(refusal(&body).remedy, Remedy::SignIn(satisfying));
        let body = json!({ "error": "interaction_required", "claims": "none" });
        assert_eq!(refusal(&body).remedy, Remedy::SignIn(SignIn::Anew));
    }

    #[test]
    fn other_documents_are_not_read_as_an_error() {
        assert_eq!(read("<html>"), None);
        assert_eq!(read(r#"{"access_token":"x"}"#), None);
    }
}
