//! Credentials by which the application authenticates to the token endpoint.

use mcp_entra_policy::FederatedIdentity;
use secrecy::SecretString;

use super::federated_token::{FederatedToken, FederatedTokenError};

/// RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Credential of the application that asks the token endpoint. It is an enum and no trait, since all kinds are known here
/// and differ in nothing but a few form parameters.
pub(super) enum ClientCredential {
    /// The projected service account token, as `client_assertion`.
    Federated(FederatedToken),
    /// None: a public client (RFC 6749 section 2.1). What it asks with belongs to the grant, as the user's refresh token.
    Public,
}

impl ClientCredential {
    /// The form parameters that authenticate the application, read afresh for every request.
    pub(super) async fn parameters(&self) -> Result<Vec<(&'static str, SecretString)>, FederatedTokenError> {
        match self {
            Self::Federated(token) => Ok(vec![
                ("client_assertion_type", SecretString::from(ASSERTION_TYPE)),
                ("client_assertion", token.read().await?),
            ]),
            Self::Public => Ok(Vec::new()),
        }
    }

    /// Values that the federated credential in Entra must have, if there is one and it can be read.
    pub(super) async fn identity(&self) -> Option<FederatedIdentity> {
        match self {
            Self::Federated(token) => token.describe().await.ok().map(|token| token.identity),
            Self::Public => None,
        }
    }
}
