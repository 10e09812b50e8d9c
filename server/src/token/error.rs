//! Why a token is refused: a stable reason for the audit line, and a sentence for the client.

/// Why a token is refused. The text is meant for the client (RFC 6750 `error_description`): ASCII without quotes or
/// backslashes, and it says what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any access token of Entra.
    #[error("the token is longer than 16 KiB; emit fewer groups or optional claims for this app registration")]
    TooLong,
    /// Not a signed JWT, or one that different readers would read differently.
    #[error("the token is malformed: {0}; send the access token exactly as Entra issued it")]
    Malformed(&'static str),
    /// Signed by another algorithm than RS256, or not at all.
    #[error("the token is not signed with RS256, the only algorithm accepted; send an access token issued by Entra")]
    Algorithm,
    /// The header names extensions that must be understood (RFC 7515 section 4.1.11).
    #[error(
        "the token's header has critical extensions (crit), which Entra never issues; send an access token issued by Entra"
    )]
    CriticalHeader,
    /// No usable signing keys: nobody can be let in.
    #[error("the signing keys of Entra are not available at the moment; try again in a minute")]
    KeysUnavailable,
    /// Signed with a key that the tenant's authority does not publish.
    #[error("the token is signed with a key that Entra does not publish for this tenant; sign in again")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the signature of the token does not verify; send the access token exactly as Entra issued it")]
    Signature,
    /// The key is published for another issuer than the token's.
    #[error("the key that signed the token is not one for the token's issuer; sign in again")]
    KeyIssuer,
    /// A token of version 1.
    #[error(
        "this is a version 1 token, but version 2 is needed: set api.requestedAccessTokenVersion to 2 in the manifest of this server's app registration, then sign in again"
    )]
    Version1,
    /// A token for Microsoft Graph.
    #[error("this is a token for Microsoft Graph, not for this server: request {scope} instead")]
    GraphToken {
        /// A scope of this server, fully qualified.
        scope: String,
    },
    /// An ID token.
    #[error("this is an ID token (it has no scp): send the access token, after requesting {scope}")]
    IdToken {
        /// A scope of this server, fully qualified.
        scope: String,
    },
    /// A token of another tenant.
    #[error("the token was issued for tenant {tenant}, but this server serves tenant {expected}: sign in to that one")]
    Tenant {
        /// `tid` of the token.
        tenant: String,
        /// The server's tenant.
        expected: String,
    },
    /// A token of another issuer.
    #[error("the token was not issued by {expected}: sign in there")]
    Issuer {
        /// The server's issuer.
        expected: String,
    },
    /// A token for another server.
    #[error("the token was issued for {audience}, not for this server: request {scope}")]
    Audience {
        /// `aud` of the token, or a description of it.
        audience: String,
        /// A scope of this server, fully qualified.
        scope: String,
    },
    /// Past its end.
    #[error("the token has expired; refresh it or sign in again")]
    Expired,
    /// Before its start.
    #[error("the token is not valid yet; check the clocks of client and server")]
    NotYetValid,
    /// A claim is absent or not of its type.
    #[error("the token's claim {0} is missing or not as Entra issues it; send an access token issued by Entra")]
    Claim(&'static str),
    /// Bound to a key that the client holds (RFC 7800): a bearer of it proves nothing.
    #[error(
        "the token is bound to a device or key (cnf) and cannot be sent as a bearer token; request an ordinary access token"
    )]
    Bound,
    /// An app-only token without any application permission. Entra issues those to every service principal of the
    /// tenant, so that the token alone proves no permission.
    #[error(
        "the application has no app role on this server: an administrator of Entra must assign it one (application permission with admin consent)"
    )]
    ApplicationWithoutRole,
    /// A user token without any of the required scopes.
    #[error("the token carries none of the required scopes: request {scopes}")]
    ScopeMissing {
        /// The required scopes, fully qualified, separated by spaces.
        scopes: String,
    },
}

impl TokenError {
    /// A stable name for the audit line.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed(_) => "malformed_token",
            Self::Algorithm => "algorithm_not_accepted",
            Self::CriticalHeader => "critical_header",
            Self::KeysUnavailable => "keys_unavailable",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "bad_signature",
            Self::KeyIssuer => "key_of_another_issuer",
            Self::Version1 => "version_1_token",
            Self::GraphToken { .. } => "graph_token",
            Self::IdToken { .. } => "id_token",
            Self::Tenant { .. } => "another_tenant",
            Self::Issuer { .. } => "another_issuer",
            Self::Audience { .. } => "another_audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Claim(_) => "bad_claim",
            Self::Bound => "bound_token",
            Self::ApplicationWithoutRole => "application_without_role",
            Self::ScopeMissing { .. } => "scope_missing",
        }
    }

    /// Whether the token is good but for its scopes: HTTP 403 `insufficient_scope`, which the client can meet by
    /// asking for more. Everything else is 401 `invalid_token`, or 503 while [`Self::keys_unavailable`].
    pub fn required_scope_missing(&self) -> bool {
        matches!(self, Self::ScopeMissing { .. })
    }

    /// Whether no token can be verified at the moment: HTTP 503, not the client's fault.
    pub fn keys_unavailable(&self) -> bool {
        matches!(self, Self::KeysUnavailable)
    }
}
