//! Condition types in the status of an McpServer. Each condition describes the observed state: "configured" is never
//! reported as "works".

use std::fmt;

/// Type of a condition. `True` is the good state, except for [`Conflicted`](Self::Conflicted), which is present only
/// while it is `True`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The spec is valid, its references are resolved, and the operator's configuration allows it.
    Accepted,
    /// The child objects are applied and match the spec.
    Programmed,
    /// Enough pods are ready now.
    Available,
    /// A pod exchanged its service account token for a token of Entra at its last probe.
    FederationReady,
    /// Every ready pod enforces the current revision of the compiled policy.
    AuthorizationReady,
    /// The session store answers, so that sessions can be stored. Present only with `spec.authorizationServer`.
    SessionStoreReady,
    /// The backend answers. Present only with `spec.backend`.
    BackendReady,
    /// Only the companion can reach the backend. Present only with `spec.backend`.
    BackendIsolated,
    /// Every parent accepts the route. Present only with `spec.exposure`.
    Exposed,
    /// The certificate is valid. Present only with `spec.exposure.tls.issuerRef`.
    CertificateReady,
    /// The name of a child belongs to an object of another owner, or another server owns the host, the path or the
    /// client id.
    Conflicted,
    /// Summary of the other conditions.
    Ready,
}

impl ConditionType {
    /// Condition types that every McpServer has from its first reconcile.
    pub const ALWAYS: &[Self] = &[
        Self::Accepted,
        Self::Programmed,
        Self::Available,
        Self::FederationReady,
        Self::AuthorizationReady,
        Self::Ready,
    ];

    /// Returns the value of `status.conditions[].type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Programmed => "Programmed",
            Self::Available => "Available",
            Self::FederationReady => "FederationReady",
            Self::AuthorizationReady => "AuthorizationReady",
            Self::SessionStoreReady => "SessionStoreReady",
            Self::BackendReady => "BackendReady",
            Self::BackendIsolated => "BackendIsolated",
            Self::Exposed => "Exposed",
            Self::CertificateReady => "CertificateReady",
            Self::Conflicted => "Conflicted",
            Self::Ready => "Ready",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
