//! Validation of bearer tokens: returns the [`Principal`] of a token, or the reason for refusing it.
//!
//! `jwt` parses and verifies the compact form. Before the signature is verified, claims only serve to describe a
//! mistake. `keys` fetches Entra's signing keys. `claims` turns verified claims into a `principal`, using the
//! tenant's `issuers`; a user's principal keeps the token as its `assertion`. `recent` caches validations for a
//! minute. `session` has the tokens of this server's own authorization server. Permissions of the principal belong to
//! the policy.

mod assertion;
mod claims;
mod error;
#[cfg(test)]
mod fuzz;
mod issuers;
mod jwt;
mod keys;
mod own_issuer;
mod principal;
mod recent;
mod session;

use std::sync::Arc;

use mcp_entra_policy::ServerConfiguration;
use secrecy::{ExposeSecret, SecretString};

pub use assertion::{Assertion, TokenDigest};
pub use error::{Remedy, TokenError};
pub use issuers::issuer;
pub use keys::{Keys, KeysError};
pub use own_issuer::OwnIssuer;
pub use principal::{Account, Application, LocalUser, Membership, Principal, Profile, User};
pub use session::{
    CONTEXT_SCOPE, GRAPH_SCOPE, SessionClaims, SessionError, SessionOfToken, Sessions, TOKEN_TYPE, context_scope,
    graph_scope, session_of,
};

use claims::Expected;
use jwt::UnverifiedToken;
use recent::Recent;

/// Validator of access tokens of one tenant for one server.
pub struct TokenValidator {
    keys: Arc<Keys>,
    expected: Expected,
    recent: Recent,
    /// Absent if clients sign in to Entra only.
    own: Option<OwnIssuer>,
}

impl TokenValidator {
    /// Returns a validator for this configuration, with these keys.
    pub fn new(configuration: &ServerConfiguration, keys: Arc<Keys>) -> Self {
        Self { keys, expected: Expected::new(configuration), recent: Recent::new(), own: None }
    }

    /// Also accepts the tokens of this issuer.
    pub fn with_own_issuer(self, own: OwnIssuer) -> Self {
        Self { own: Some(own), ..self }
    }

    /// Returns the principal of this bearer token. Uses the network only if the token's key is unknown, at most once
    /// a minute.
    pub async fn validate(&self, bearer: &str) -> Result<Arc<Principal>, TokenError> {
        self.validate_secret(bearer.into()).await
    }

    /// Like [`Self::validate`], without another copy of the token.
    pub(crate) async fn validate_secret(&self, bearer: SecretString) -> Result<Arc<Principal>, TokenError> {
        let digest = TokenDigest::of(bearer.expose_secret());
        if let Some(owner) = self.recent.owner(digest, &self.keys, now()).await {
            return Ok(owner.with(|| Assertion::new(bearer, digest)));
        }
        let token = UnverifiedToken::parse(bearer.expose_secret())?;
        // The issuer in the token selects the validator, and the validator its algorithm.
        if let Some(own) = self.own.as_ref().filter(|own| own.is_named_by(&token)) {
            return own.principal(&token, now()).await.map(Arc::new);
        }
        token.pin("RS256")?;
        let verified = match self.keys.find(token.key_id()).await.and_then(|key| token.verify(key)) {
            Ok(verified) => verified,
            // Only Graph can verify its own tokens, and another cloud has other keys. Both are refused here, with an
            // error that describes the actual mistake.
            Err(error @ (TokenError::UnknownKey | TokenError::Signature)) => {
                return Err(self.expected.recognise_mistake(token.unverified_claims()).unwrap_or(error));
            }
            Err(error) => return Err(error),
        };
        let now = now();
        let length = bearer.expose_secret().len();
        let principal = claims::principal(&verified, Assertion::new(bearer, digest), &self.expected, now)?;
        let principal = Arc::new(principal);
        self.recent.remember((digest, length), verified.into_key(), &principal, now).await;
        Ok(principal)
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}
