//! What went wrong on the way to Graph or there, in words that a person or a model can act on.

use http::StatusCode;
use serde::Deserialize;

use crate::entra::StsError;
use crate::http_client::{Answer, ExchangeError};

/// Why Graph gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GraphError {
    /// An application has nobody to act on behalf of.
    #[error(
        "this tool reads Microsoft Graph as the signed-in user, and the caller is an application without one: sign in as a user"
    )]
    NoUser,
    /// Entra issued no token for Graph.
    #[error("no access to Microsoft Graph with the permissions {permissions} on the user's behalf. {source}")]
    NoToken {
        /// The delegated permissions that were asked for.
        permissions: String,
        /// What Entra said.
        source: StsError,
    },
    /// Graph could not be asked.
    #[error("Microsoft Graph does not answer ({0}); try again in a minute")]
    Unreachable(ExchangeError),
    /// The answer is not JSON.
    #[error(
        "Microsoft Graph answered HTTP {status} with something that is not JSON; check whether a proxy answers in its place"
    )]
    NotJson {
        /// The answer's status.
        status: StatusCode,
    },
    /// Graph said no.
    #[error("{0}")]
    Refused(GraphRefusal),
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
    /// `request-id`: what Microsoft's support asks for.
    pub request_id: Option<String>,
    /// `Retry-After`, as Graph wrote it: seconds (decimals included), or a date.
    pub retry_after: Option<String>,
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
    pub(super) fn read(answer: &Answer) -> Self {
        let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let error = match serde_json::from_slice(&answer.body) {
            Ok(ErrorDocument { error }) => error,
            Err(_) => ErrorMember { code: String::new(), message: String::new() },
        };
        Self {
            status: answer.status,
            code: error.code,
            message: error.message,
            request_id: header("request-id"),
            retry_after: header("retry-after"),
        }
    }

    fn next_step(&self) -> String {
        match self.status.as_u16() {
            401 => "call again; if that does not help, sign in again in the client".to_owned(),
            403 => "the user or the app registration lacks the permission: an administrator checks API permissions, and what the user may see".to_owned(),
            404 => "it does not exist, or the user has no such thing (a mailbox needs a licence)".to_owned(),
            429 | 503 | 504 => match &self.retry_after {
                Some(when) if when.parse::<f64>().is_ok() => format!("call again after {when} seconds"),
                Some(when) => format!("call again after {when}"),
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
        if !self.message.is_empty() {
            write!(formatter, ": {}", self.message.trim_end_matches('.'))?;
        }
        write!(formatter, ". Next: {}", self.next_step())?;
        match &self.request_id {
            Some(request_id) => write!(formatter, " (request-id {request_id})."),
            None => formatter.write_str("."),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn refusal(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> String {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let status = StatusCode::from_u16(status).unwrap();
        GraphRefusal::read(&Answer { status, headers, body: body.as_bytes().to_vec() }).to_string()
    }

    #[test]
    fn a_refusal_names_graphs_code_its_text_the_request_and_what_to_do() {
        let body = r#"{"error":{"code":"ErrorAccessDenied","message":"Access is denied.","innerError":{}}}"#;
        let text = refusal(403, &[("request-id", "r1")], body);
        assert!(
            text.starts_with("Microsoft Graph answered HTTP 403 ErrorAccessDenied: Access is denied. Next: "),
            "{text}"
        );
        assert!(text.ends_with("(request-id r1)."), "{text}");
    }

    #[test]
    fn a_throttled_caller_learns_how_long_to_wait_in_every_form_of_retry_after() {
        assert!(refusal(429, &[("retry-after", "2.128")], "").contains("after 2.128 seconds"));
        assert!(refusal(503, &[("retry-after", "Tue, 24 Nov 2026 08:00:00 GMT")], "").contains("after Tue, 24 Nov"));
        assert!(refusal(429, &[], "<html>").contains("in a minute"));
    }
}
