//! Refusal of a spec.

use crate::conditions::condition::Reason;

/// The reason why an McpServer is not accepted, for its `Accepted` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Refusal {
    /// Returns true if the refusal ends the exposure. After any other refusal, the server stays exposed.
    pub(crate) fn hides(&self) -> bool {
        matches!(self.reason, Reason::TlsRequired | Reason::HostNotAllowed)
    }
}

pub(crate) fn refuse<T>(reason: Reason, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { reason, message: message.into() })
}
