//! Errors of Graph and of the way there, with messages for people and models.
//!
//! `Display` shows only codes, ids and our own words, so it is safe for logs. Texts of Graph or Entra may name an
//! account, so only the caller sees them: [`GraphError::told`].

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use crate::entra::{ClaimsChallenge, Remedy, SignIn, StsError, claims_challenge, word};
use crate::http_client::{Again, Answer, ExchangeError, retry_after};
use crate::token::SessionError;

/// Graph's code for a tenant without Exchange Online.
const NO_EXCHANGE: &str = "OrganizationFromTenantGuidNotFound";

/// The reason why Graph gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GraphError {
    /// An application has no user to act on behalf of.
    #[error(
        "this tool uses Microsoft Graph as the signed-in user, but the caller is an application: sign in as a user"
    )]
    NoUser,
    /// An application names no user.
    #[error(
        "the caller is an application, so there is no signed-in user: set the argument user to the object id or user principal name of a user"
    )]
    UserNotNamed,
    /// A user names a user.
    #[error("this tool works only for the signed-in user: leave out the argument user")]
    UserNamedByUser,
    /// An application names something that is not a user.
    #[error(
        "the argument user is neither an object id (a GUID) nor a user principal name: give one of them, such as alice@contoso.com"
    )]
    NotAUser,
    /// Entra issued no token for Graph as the user.
    #[error("no access to Microsoft Graph as the user, with the permissions {permissions}. {source}{}", .source.pause())]
    NoToken {
        /// The requested delegated permissions.
        permissions: String,
        /// The error of Entra.
        source: StsError,
    },
    /// Entra issued no token for Graph to the application.
    #[error("no access to Microsoft Graph as the application itself. {source}{}", .source.pause())]
    NoApplicationToken {
        /// The error of Entra.
        source: StsError,
    },
    /// Graph did not answer.
    #[error(
        "Microsoft Graph does not answer ({source}); check the network and call again (client-request-id {client_request_id})"
    )]
    Unreachable {
        /// The failure of the exchange.
        source: ExchangeError,
        /// The request's id in Graph's logs, if it arrived.
        client_request_id: String,
    },
    /// Too many of the caller's requests wait already.
    #[error(
        "too many of your calls about this user already wait for Microsoft Graph; call again when some of them have ended"
    )]
    Crowded,
    /// Graph or Entra took too long.
    #[error("Microsoft Graph gave no answer within {seconds} s; call again in a minute")]
    TooSlow {
        /// Seconds that the server waited.
        seconds: u64,
    },
    /// Graph did not confirm a request that must not be repeated.
    #[error(
        "Microsoft Graph did not confirm the request ({problem}), but may have carried it out (the mail sent, the event created): check Sent Items or the calendar before you call again (client-request-id {client_request_id})"
    )]
    Unconfirmed {
        /// The answer, or a description of its absence.
        problem: String,
        /// The request's id in Graph's logs, if it arrived.
        client_request_id: String,
    },
    /// The answer is not JSON.
    #[error(
        "Microsoft Graph answered HTTP {status} with something that is not JSON; call again, and if that does not help, ask an administrator whether a proxy answers in its place"
    )]
    NotJson {
        /// The answer's status.
        status: StatusCode,
    },
    /// The answer is JSON of an unexpected form.
    #[error("Microsoft Graph answered {path} in an unexpected form; report it to the developers of this server")]
    Unexpected {
        /// The requested path.
        path: &'static str,
    },
    /// The next page of a list is on another host.
    #[error(
        "the next page of the list is on another host, to which this server sends no token; request fewer entries, and report this to the developers of this server"
    )]
    ForeignLink,
    /// Graph refused the request.
    #[error("{0}")]
    Refused(Box<GraphRefusal>),
}

/// Graph's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphRefusal {
    /// The answer's status.
    pub status: StatusCode,
    /// Graph's code, such as `ErrorAccessDenied`.
    pub code: String,
    /// Graph's text.
    pub message: String,
    /// `request-id`, which Microsoft's support needs.
    pub request_id: Option<String>,
    /// `client-request-id`: the request's id from this server.
    pub client_request_id: String,
    /// Pause that Graph requests, from any of its headers.
    pub retry_after: Option<Duration>,
    /// Claims that a token must satisfy to be accepted.
    pub challenge: Option<ClaimsChallenge>,
}

impl GraphError {
    /// Returns the sign-in that would help, if any. Only the user's client can start it.
    pub fn sign_in(&self) -> Option<SignIn> {
        match self {
            Self::NoToken { permissions, source } if source.remedy() == Remedy::Consent => {
                Some(SignIn::Consenting(permissions.split(", ").map(str::to_owned).collect()))
            }
            Self::NoToken { source, .. } => source.sign_in(),
            // Graph rejects even a token that Entra issued for its challenge.
            Self::Refused(refusal) => refusal.challenge.clone().map(SignIn::Satisfying),
            _ => None,
        }
    }

    /// True if the session store does not answer. The same question may succeed soon.
    pub fn is_store_away(&self) -> bool {
        matches!(self, Self::NoToken { source: StsError::Session(SessionError::Unavailable), .. })
    }

    /// Returns the complete text, for the caller only.
    pub fn told(&self) -> String {
        let (who, said) = match self {
            Self::NoToken { source, .. } | Self::NoApplicationToken { source } => ("Entra", source.their_words()),
            Self::Refused(refusal) => ("Microsoft Graph", refusal.their_words()),
            _ => ("", None),
        };
        said.map_or_else(|| self.to_string(), |said| format!("{self} {who} says: {said}"))
    }

    /// Returns the correlation id of a failed request to Entra, for Microsoft's support.
    pub fn correlation_id(&self) -> Option<&str> {
        match self {
            Self::NoToken { source, .. } | Self::NoApplicationToken { source } => source.correlation_id(),
            _ => None,
        }
    }

    /// True if Graph understood the question and will always refuse it for this caller.
    pub(super) fn is_about_the_question(&self) -> bool {
        matches!(self, Self::Refused(refusal) if matches!(refusal.status.as_u16(), 400 | 403 | 404))
    }

    pub(super) fn again(&self) -> Again {
        match self {
            Self::Refused(refusal) if is_busy(refusal.status) => Again::After(refusal.retry_after),
            Self::Unreachable { source: ExchangeError::Network(_), .. } => Again::After(None),
            _ => Again::Never,
        }
    }
}

/// True if a later answer may differ from one with this status.
pub(super) fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 503 | 504)
}

/// Rounds up to whole seconds.
fn seconds(pause: Duration) -> u64 {
    pause.as_secs() + u64::from(pause.subsec_nanos() > 0)
}

#[derive(Deserialize)]
struct ErrorDocument {
    error: ErrorMember,
}

#[derive(Deserialize)]
struct ErrorMember {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl GraphRefusal {
    pub(super) fn read(answer: &Answer, client_request_id: &str) -> Self {
        let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok()).and_then(word);
        let error = match serde_json::from_slice(&answer.body) {
            Ok(ErrorDocument { error }) => error,
            Err(_) => ErrorMember { code: String::new(), message: String::new() },
        };
        Self {
            status: answer.status,
            code: word(&error.code).unwrap_or_default(),
            message: error.message,
            request_id: header("request-id"),
            client_request_id: header("client-request-id").unwrap_or_else(|| client_request_id.to_owned()),
            retry_after: retry_after(&answer.headers, Timestamp::now()),
            challenge: claims_challenge(&answer.headers),
        }
    }

    /// Returns Graph's own text, for the caller only.
    fn their_words(&self) -> Option<&str> {
        Some(self.message.as_str()).filter(|message| !message.is_empty())
    }

    /// True if another token may be accepted. Graph answers 401 also if the tenant has no mailboxes; another token
    /// does not help then.
    pub(super) fn is_of_the_token(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED && self.code != NO_EXCHANGE
    }

    fn next_step(&self) -> String {
        match self.status.as_u16() {
            _ if self.code == NO_EXCHANGE => "this tenant has no Exchange Online and therefore no mailboxes: ask an administrator for a licence, or to hide the mail tools".to_owned(),
            401 => "call again; if that does not help, sign in again".to_owned(),
            403 => "the user or the app registration lacks the permission: ask an administrator to check the API permissions and the user's access".to_owned(),
            404 => "it does not exist, or not for this user (a mailbox needs a licence)".to_owned(),
            429 | 503 | 504 => match &self.retry_after {
                Some(pause) => format!("call again after {} seconds", seconds(*pause)),
                None => "call again in a minute".to_owned(),
            },
            500..=599 => "call again in a minute".to_owned(),
            _ => "correct the request".to_owned(),
        }
    }
}

impl std::fmt::Display for GraphRefusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Microsoft Graph answered HTTP {}", self.status.as_u16())?;
        if !self.code.is_empty() {
            write!(formatter, " {}", self.code)?;
        }
        write!(formatter, ". Next: {}", self.next_step())?;
        if let Some(request_id) = &self.request_id {
            write!(formatter, " (request-id {request_id}, client-request-id {}).", self.client_request_id)
        } else {
            write!(formatter, " (client-request-id {}).", self.client_request_id)
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn refused(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> GraphError {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, headers, body: body.as_bytes().to_vec() };
        GraphError::Refused(Box::new(GraphRefusal::read(&answer, "c1")))
    }

    fn refusal(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> String {
        refused(status, headers, body).to_string()
    }

    #[test]
    fn a_refusal_names_graphs_code_the_request_and_the_next_step_and_quotes_graph_to_the_caller() {
        let body = r#"{"error":{"code":"ErrorAccessDenied","message":"Access is denied.","innerError":{}}}"#;
        let error = refused(403, &[("request-id", "r1")], body);
        let text = error.to_string();
        assert!(text.starts_with("Microsoft Graph answered HTTP 403 ErrorAccessDenied. Next: "), "{text}");
        assert!(text.ends_with("(request-id r1, client-request-id c1)."), "{text}");
        assert_eq!(error.told(), format!("{text} Microsoft Graph says: Access is denied."));
    }

    #[test]
    fn the_displayed_refusal_has_no_free_text_of_graph() {
        let body =
            r#"{"error":{"code":"No alice@contoso.com","message":"Resource 'alice@contoso.com' does not exist."}}"#;
        let ids = [("request-id", "of alice@contoso.com"), ("client-request-id", "of alice@contoso.com")];
        let error = refused(404, &ids, body);
        assert!(!error.to_string().contains("alice"), "{error}");
        assert!(error.told().contains("alice"));
    }

    #[test]
    fn a_throttled_caller_learns_how_long_to_wait_in_every_form_of_retry_after() {
        assert!(refusal(429, &[("retry-after", "2.128")], "").contains("after 3 seconds"));
        assert!(refusal(503, &[("retry-after", "Tue, 24 Nov 2020 08:00:00 GMT")], "").contains("after 0 seconds"));
        assert!(refusal(429, &[], "<html>").contains("in a minute"));
    }
}
