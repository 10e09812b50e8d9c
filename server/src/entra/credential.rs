//! Credentials with which the application authenticates to the token endpoint.

use mcp_entra_policy::FederatedIdentity;
use secrecy::SecretString;

use super::federated_token::{FederatedToken, FederatedTokenError};

/// The assertion type of RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Credential of the application. It is an enum rather than a trait, because all kinds are known here and differ only
/// in form parameters.
pub(super) enum ClientCredential {
    /// The projected service account token, as `client_assertion`.
    Federated(FederatedToken),
    /// None: a public client (RFC 6749 section 2.1). Its secrets, such as the user's refresh token, belong to the
    /// grant.
    Public,
}

impl ClientCredential {
    /// Returns the form parameters that authenticate the application, read again for every request.
    pub(super) async fn parameters(&self) -> Result<Vec<(&'static str, SecretString)>, FederatedTokenError> {
        match self {
            Self::Federated(token) => Ok(vec![
                ("client_assertion_type", SecretString::from(ASSERTION_TYPE)),
                ("client_assertion", token.read().await?),
            ]),
            Self::Public => Ok(Vec::new()),
        }
    }

    /// Returns the values that the federated credential in Entra must have, if the credential is federated and
    /// readable.
    pub(super) async fn identity(&self) -> Option<FederatedIdentity> {
        match self {
            Self::Federated(token) => token.describe().await.ok().map(|token| token.identity),
            Self::Public => None,
        }
    }
}
