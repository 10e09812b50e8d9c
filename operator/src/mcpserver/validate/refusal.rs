//! The refusal of a spec.

use crate::conditions::condition::Reason;

/// The reason why an McpServer cannot be built, as its `Accepted` condition says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Refusal {
    /// Returns true if the server is exposed no longer. After any other refusal it stays exposed as it was.
    pub(crate) fn hides(&self) -> bool {
        matches!(self.reason, Reason::TlsRequired | Reason::HostNotAllowed)
    }
}

pub(crate) fn refuse<T>(reason: Reason, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { reason, message: message.into() })
}
