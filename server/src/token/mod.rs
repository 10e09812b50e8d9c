//! Who: turns the bearer token of a request into a [`Principal`], or says why not.
//!
//! Three steps, each in its room: `jwt` reads and verifies the compact form (no claim is looked at before the
//! signature holds, but to name a mistake), `keys` fetches Entra's signing keys, `claims` turns verified claims into a
//! principal. Nothing about what the principal may do lives here; that is the policy's.

mod claims;
mod error;
mod jwt;
mod keys;
mod principal;

use std::sync::Arc;

use mcp_entra_policy::ServerConfiguration;

pub use error::TokenError;
pub use keys::{Keys, KeysError};
pub use principal::{Application, Principal, User};

use claims::Expected;
use jwt::UnverifiedToken;

/// Verifies access tokens of one tenant for one server.
pub struct TokenValidator {
    keys: Arc<Keys>,
    expected: Expected,
}

impl TokenValidator {
    /// A validator for the tokens that this configuration accepts, verified with these keys.
    pub fn new(configuration: &ServerConfiguration, keys: Arc<Keys>) -> Self {
        Self { keys, expected: Expected::new(configuration) }
    }

    /// Who this bearer token speaks for. Asks the network only if the token's key is unknown, and then at most once a
    /// minute.
    pub async fn validate(&self, bearer: &str) -> Result<Arc<Principal>, TokenError> {
        let token = UnverifiedToken::parse(bearer)?;
        let claims = match self.keys.find(token.key_id()).await.and_then(|key| token.verify(&key)) {
            Ok(claims) => claims,
            // Tokens for Graph can be verified by nobody but Graph, those of another cloud have other keys, those of
            // version 1 another issuer: all are refused, and the client learns its real mistake.
            Err(error @ (TokenError::UnknownKey | TokenError::Signature | TokenError::KeyIssuer)) => {
                return Err(self.expected.recognise_mistake(token.unverified_claims()).unwrap_or(error));
            }
            Err(error) => return Err(error),
        };
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        claims::principal(claims, bearer, &self.expected, now).map(Arc::new)
    }
}
