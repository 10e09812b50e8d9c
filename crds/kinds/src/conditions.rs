//! The types of condition that a status carries. Each says what is so now; "configured" is never written as "works".

use std::fmt;

/// A condition's type. `True` is good, but for [`Conflicted`](Self::Conflicted), which is present only while `True`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The spec is valid, its references are resolved, and the operator's configuration allows it.
    Accepted,
    /// The children are applied as built.
    Programmed,
    /// Enough pods are ready now.
    Available,
    /// A pod exchanged its service account token at its last probe.
    FederationReady,
    /// Every ready pod enforces the compiled revision of the policy.
    AuthorizationReady,
    /// Sessions can be kept, now. Present with `spec.authorizationServer` only.
    SessionStoreReady,
    /// The backend answers, now. Present with `spec.backend` only.
    BackendReady,
    /// The backend is reached by nobody but the companion. Present with `spec.backend` only.
    BackendIsolated,
    /// Every parent accepts the route. Present with `spec.exposure` only.
    Exposed,
    /// The certificate is valid now. Present with `spec.exposure.tls.issuerRef` only.
    CertificateReady,
    /// A child's name is somebody else's object, or another server holds the host, path or client id.
    Conflicted,
    /// All of the above.
    Ready,
}

impl ConditionType {
    /// Those that every McpServer has, from the first moment on.
    pub const ALWAYS: &[Self] = &[
        Self::Accepted,
        Self::Programmed,
        Self::Available,
        Self::FederationReady,
        Self::AuthorizationReady,
        Self::Ready,
    ];

    /// The name in `status.conditions[].type`.
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
