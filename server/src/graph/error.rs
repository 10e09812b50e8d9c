//! Errors on the way to Graph or there, in words that a person or a model can act on.
//!
//! An error displays codes, ids and our own words, and goes into logs so. What Graph or Entra say in theirs may name an
//! account, and is told to the caller alone: [`GraphError::told`].

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use crate::entra::{ClaimsChallenge, Remedy, SignIn, StsError, claims_challenge, word};
use crate::http_client::{Again, Answer, ExchangeError, retry_after};
use crate::token::SessionError;

/// Graph's code where the tenant has no Exchange Online.
const NO_EXCHANGE: &str = "OrganizationFromTenantGuidNotFound";

/// Reason why Graph gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GraphError {
    /// An application has nobody to act on behalf of.
    #[error(
        "this tool uses Microsoft Graph as the signed-in user, and the caller is an application without one: sign in as a user"
    )]
    NoUser,
    /// An application asks about nobody.
    #[error(
        "the caller is an application, so that there is no signed-in user: give the argument user, the object id or user principal name of the user whom this is about"
    )]
    UserNotNamed,
    /// A user asks about somebody.
    #[error("this tool is about the signed-in user and nobody else: leave out the argument user")]
    UserNamedByUser,
    /// An application asks about something that is no user.
    #[error(
        "the argument user is neither an object id (a GUID) nor a user principal name: give one of them, as alice@contoso.com"
    )]
    NotAUser,
    /// Entra issued no token for Graph as the user.
    #[error("no access to Microsoft Graph as the user, with the permissions {permissions}. {source}{}", .source.pause())]
    NoToken {
        /// The delegated permissions that were asked for.
        permissions: String,
        /// Error of Entra.
        source: StsError,
    },
    /// Entra issued no token for Graph to the application.
    #[error("no access to Microsoft Graph as the application itself. {source}{}", .source.pause())]
    NoApplicationToken {
        /// Error of Entra.
        source: StsError,
    },
    /// Graph could not be asked.
    #[error(
        "Microsoft Graph does not answer ({source}); check the network and call again (client-request-id {client_request_id})"
    )]
    Unreachable {
        /// Failure of the exchange.
        source: ExchangeError,
        /// Name of the request in Graph's logs, if it got there.
        client_request_id: String,
    },
    /// Too much of the caller's waits already.
    #[error(
        "too many of your calls about this user wait for Microsoft Graph already; call again when some of them are answered"
    )]
    Crowded,
    /// Graph, or Entra before it, took too long.
    #[error("Microsoft Graph gave no answer within {seconds} s; call again in a minute")]
    TooSlow {
        /// Time that it was waited for.
        seconds: u64,
    },
    /// Graph did not confirm a request that is sent once.
    #[error(
        "Microsoft Graph did not confirm the request ({problem}), which may have been carried out all the same (the mail sent, the event created): look into Sent Items or the calendar before you call again (client-request-id {client_request_id})"
    )]
    Unconfirmed {
        /// The answer, or the lack of one.
        problem: String,
        /// Name of the request in Graph's logs, if it got there.
        client_request_id: String,
    },
    /// The answer is not JSON.
    #[error(
        "Microsoft Graph answered HTTP {status} with something that is not JSON; call again, and if that does not help, an administrator checks whether a proxy answers in its place"
    )]
    NotJson {
        /// The answer's status.
        status: StatusCode,
    },
    /// The answer is JSON of another form.
    #[error("Microsoft Graph answered {path} in an unexpected form; report it to the developers of this server")]
    Unexpected {
        /// Path that was asked for.
        path: &'static str,
    },
    /// A list goes on somewhere else.
    #[error(
        "Microsoft Graph says that the list goes on at another host, where this server sends no token; ask for fewer entries, and report it to the developers of this server"
    )]
    ForeignLink,
    /// Graph said no.
    #[error("{0}")]
    Refused(Box<GraphRefusal>),
}

/// Graph's refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphRefusal {
    /// The answer's status.
    pub status: StatusCode,
    /// Graph's code, as `ErrorAccessDenied`.
    pub code: String,
    /// Graph's text.
    pub message: String,
    /// `request-id`, which Microsoft's support asks for.
    pub request_id: Option<String>,
    /// `client-request-id`: our name of the request.
    pub client_request_id: String,
    /// Time that Graph asks to wait, in whichever form it said so.
    pub retry_after: Option<Duration>,
    /// Claims that a token must satisfy to be accepted.
    pub challenge: Option<ClaimsChallenge>,
}

impl GraphError {
    /// The sign-in that would help, if one does: nobody but the user's client can bring it about.
    pub fn sign_in(&self) -> Option<SignIn> {
        match self {
            Self::NoToken { permissions, source } if source.remedy() == Remedy::Consent => {
                Some(SignIn::Consenting(permissions.split(", ").map(str::to_owned).collect()))
            }
            Self::NoToken { source, .. } => source.sign_in(),
            // Even a token that Entra issued to satisfy it is rejected.
            Self::Refused(refusal) => refusal.challenge.clone().map(SignIn::Satisfying),
            _ => None,
        }
    }

    /// True if the store with the user's session does not answer: the same question may be answered soon.
    pub fn is_store_away(&self) -> bool {
        matches!(self, Self::NoToken { source: StsError::Session(SessionError::Unavailable), .. })
    }

    /// All that can be said of it, for nobody but the caller.
    pub fn told(&self) -> String {
        let (who, said) = match self {
            Self::NoToken { source, .. } | Self::NoApplicationToken { source } => ("Entra", source.their_words()),
            Self::Refused(refusal) => ("Microsoft Graph", refusal.their_words()),
            _ => ("", None),
        };
        said.map_or_else(|| self.to_string(), |said| format!("{self} {who} says: {said}"))
    }

    /// Id by which Microsoft's support finds the request to Entra, if that one failed.
    pub fn correlation_id(&self) -> Option<&str> {
        match self {
            Self::NoToken { source, .. } | Self::NoApplicationToken { source } => source.correlation_id(),
            _ => None,
        }
    }

    /// Says that Graph has understood the question and will not answer it to this caller, however often it is asked.
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

/// True if an answer of this status may be another one soon.
pub(super) fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 503 | 504)
}

/// Whole seconds, never too few.
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

    /// Graph's own text, for nobody but the caller.
    fn their_words(&self) -> Option<&str> {
        Some(self.message.as_str()).filter(|message| !message.is_empty())
    }

    /// Says that another token may be accepted. None is where the tenant has no mailboxes at all, although Graph answers
    /// 401 there.
    pub(super) fn is_of_the_token(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED && self.code != NO_EXCHANGE
    }

    fn next_step(&self) -> String {
        match self.status.as_u16() {
            _ if self.code == NO_EXCHANGE => "there is no Exchange Online in this tenant, hence no mailbox: an administrator gives the tenant a licence for it, or hides the mail tools".to_owned(),
            401 => "call again; if that does not help, sign in again".to_owned(),
            403 => "the user or the app registration lacks the permission: an administrator checks API permissions, and what the user may see".to_owned(),
            404 => "it does not exist, or the user has no such thing (a mailbox needs a licence)".to_owned(),
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
    fn a_refusal_names_graphs_code_the_request_and_what_to_do_and_tells_the_caller_graphs_text() {
        let body = r#"{"error":{"code":"ErrorAccessDenied","message":"Access is denied.","innerError":{}}}"#;
        let error = refused(403, &[("request-id", "r1")], body);
        let text = error.to_string();
        assert!(text.starts_with("Microsoft Graph answered HTTP 403 ErrorAccessDenied. Next: "), "{text}");
        assert!(text.ends_with("(request-id r1, client-request-id c1)."), "{text}");
        assert_eq!(error.told(), format!("{text} Microsoft Graph says: Access is denied."));
    }

    #[test]
    fn what_is_displayed_of_a_refusal_holds_nothing_that_graph_says_in_free_text() {
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
