//! Reasons for refusing a token: a stable name for the audit line and a message for the client.

/// The reason for refusing a token. The message goes to the client (RFC 6750 `error_description`): ASCII without
/// quotes or backslashes, with the next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is longer than any access token of Entra.
    #[error("the token is longer than 16 KiB; emit fewer groups or optional claims for this app registration")]
    TooLong,
    /// The token is not a signed JWT, or is ambiguous.
    #[error("the token is malformed: {0}; send the access token exactly as Entra issued it")]
    Malformed(&'static str),
    /// The token is not signed with RS256.
    #[error("the token is not signed with RS256, the only algorithm accepted; send an access token issued by Entra")]
    Algorithm,
    /// The header has critical extensions (RFC 7515 section 4.1.11).
    #[error(
        "the token's header has critical extensions (crit), which Entra never issues; send an access token issued by Entra"
    )]
    CriticalHeader,
    /// There are no usable signing keys, so no token can be verified.
    #[error("the signing keys of Entra are not available at the moment; try again in a minute")]
    KeysUnavailable,
    /// The tenant's authority does not publish the signing key.
    #[error("the token is signed with a key that Entra does not publish for this tenant; sign in again")]
    UnknownKey,
    /// The signature does not verify.
    #[error("the signature of the token does not verify; send the access token exactly as Entra issued it")]
    Signature,
    /// The key is published for another issuer.
    #[error("the key that signed the token belongs to another issuer; sign in again")]
    KeyIssuer,
    /// A token of version 1.
    #[error(
        "this is a version 1 token, but version 2 is needed: set api.requestedAccessTokenVersion to 2 in the manifest of this server's app registration, then sign in again"
    )]
    Version1,
    /// A token of version 2.
    #[error(
        "this is a version 2 token, but this server accepts only version 1: set api.requestedAccessTokenVersion to 1 in the manifest of this server's app registration, then sign in again"
    )]
    Version2,
    /// A token for Microsoft Graph.
    #[error(
        "this is a token for Microsoft Graph, not for this server: request the full name {scope} (a scope without a prefix is one of Graph's)"
    )]
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
    #[error(
        "the token was issued for tenant {tenant}, but this server serves tenant {expected}: sign in to the latter"
    )]
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
    /// The token has expired.
    #[error("the token expired {} ago; refresh it or sign in again", spoken(*.seconds_ago))]
    Expired {
        /// Seconds since the end of the token, by the server's clock.
        seconds_ago: u64,
    },
    /// The token is not valid yet.
    #[error("the token becomes valid in {}; check the clocks of client and server", spoken(*.in_seconds))]
    NotYetValid {
        /// Seconds until the start of the token, by the server's clock.
        in_seconds: u64,
    },
    /// A claim is absent or has the wrong type.
    #[error(
        "the token's claim {0} is missing or does not have the form that Entra uses; send an access token issued by Entra"
    )]
    Claim(&'static str),
    /// The token is bound to a key of the client (RFC 7800), but a bearer token does not prove its possession.
    #[error(
        "the token is bound to a device or key (cnf) and cannot be sent as a bearer token; request an ordinary access token"
    )]
    Bound,
    /// The claims that distinguish users from applications contradict each other.
    #[error(
        "the token speaks neither for a user nor for an application (its scp and idtyp contradict each other); send an access token issued by Entra"
    )]
    NeitherUserNorApplication,
    /// A client that this server does not allow obtained the token.
    #[error(
        "this server does not serve the client {client}: use one that it serves, or ask the platform team to add this one to spec.entra.allowedClients of the McpServer"
    )]
    Client {
        /// `azp` or `appid`: a GUID.
        client: String,
    },
    /// An app-only token without any application permission. Entra issues such tokens to every service principal of
    /// the tenant, so the token alone proves no permission.
    #[error(
        "the application has no app role on this server: an administrator of Entra must assign it one (application permission with admin consent)"
    )]
    ApplicationWithoutRole,
    /// The session of the token has ended.
    #[error("the session of this token has ended; sign in again")]
    SessionEnded,
    /// A user token has none of the required scopes.
    #[error("the token carries none of the required scopes: request {scopes}")]
    ScopeMissing {
        /// The required scopes, fully qualified, separated by spaces.
        scopes: String,
    },
}

impl TokenError {
    /// Returns a stable name for the audit line.
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
            Self::Version2 => "version_2_token",
            Self::GraphToken { .. } => "graph_token",
            Self::IdToken { .. } => "id_token",
            Self::Tenant { .. } => "another_tenant",
            Self::Issuer { .. } => "another_issuer",
            Self::Audience { .. } => "another_audience",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Claim(_) => "bad_claim",
            Self::Bound => "bound_token",
            Self::NeitherUserNorApplication => "neither_user_nor_application",
            Self::Client { .. } => "client_not_allowed",
            Self::ApplicationWithoutRole => "application_without_role",
            Self::SessionEnded => "session_ended",
            Self::ScopeMissing { .. } => "scope_missing",
        }
    }

    /// Returns the remedy for the caller.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::KeysUnavailable => Remedy::Patience,
            Self::ScopeMissing { .. } => Remedy::MoreScopes,
            Self::ApplicationWithoutRole | Self::Client { .. } => Remedy::Administrator,
            _ => Remedy::AnotherToken,
        }
    }
}

/// Remedy after a refused token. It determines the HTTP answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Another token: 401 `invalid_token`.
    AnotherToken,
    /// A token with more scopes, which the client can request: 403 `insufficient_scope`.
    MoreScopes,
    /// A change by an administrator: 403 without a challenge, because no other token would be accepted either.
    Administrator,
    /// Another attempt later: 503, because the cause is on the server's side.
    Patience,
}

/// Returns a duration in everyday units.
fn spoken(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let (number, unit) = match () {
        () if days > 1 => (days, "days"),
        () if hours > 1 => (hours, "hours"),
        () if minutes > 1 => (minutes, "minutes"),
        () => (seconds, "seconds"),
    };
    format!("{number} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_the_largest_unit_with_at_least_two() {
        let table =
            [(61, "61 seconds"), (120, "2 minutes"), (7199, "119 minutes"), (7200, "2 hours"), (200_000, "2 days")];
        for (seconds, text) in table {
            assert_eq!(spoken(seconds), text);
        }
        let error = TokenError::Expired { seconds_ago: 12 * 60 + 5 };
        assert_eq!(error.to_string(), "the token expired 12 minutes ago; refresh it or sign in again");
    }
}
