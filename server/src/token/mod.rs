//! Validation of bearer tokens: turns the token of a request into a [`Principal`], or says why not.
//!
//! `jwt` reads and verifies the compact form: it looks at no claim before the signature holds, but to name a mistake.
//! `keys` fetches Entra's signing keys. `claims` turns verified claims into a `principal`, issued by one of the tenant's
//! `issuers`; a user's keeps the token as its `assertion`. `recent` keeps the validations of the last minute. `session` are the tokens
//! of this server's own authorization server. Rights of
//! the principal do not live here; they are the policy's.

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

pub use assertion::{Assertion, TokenDigest};
pub use error::{Remedy, TokenError};
pub use issuers::issuer;
pub use keys::{Keys, KeysError};
pub use own_issuer::OwnIssuer;
pub use principal::{Account, Application, LocalUser, Membership, Principal, User};
pub use session::{
    CONTEXT_SCOPE, GRAPH_SCOPE, SessionClaims, SessionError, SessionOfToken, Sessions, TOKEN_TYPE, context_scope,
    graph_scope, session_of,
};

use assertion::Hashed;
use claims::Expected;
use jwt::UnverifiedToken;
use recent::Recent;

/// Verifies access tokens of one tenant for one server.
pub struct TokenValidator {
    keys: Arc<Keys>,
    expected: Expected,
    recent: Recent,
    /// Absent where clients sign in to Entra alone.
    own: Option<OwnIssuer>,
}

impl TokenValidator {
    /// A validator for the tokens that this configuration accepts, verified with these keys.
    pub fn new(configuration: &ServerConfiguration, keys: Arc<Keys>) -> Self {
        Self { keys, expected: Expected::new(configuration), recent: Recent::new(), own: None }
    }

    /// The same, which accepts the tokens of this issuer, too.
    pub fn with_own_issuer(self, own: OwnIssuer) -> Self {
        Self { own: Some(own), ..self }
    }

    /// The principal of this bearer token. Asks the network only if the token's key is unknown, and then at most once a
    /// minute.
    pub async fn validate(&self, bearer: &str) -> Result<Arc<Principal>, TokenError> {
        let bearer = Hashed::new(bearer);
        if let Some(principal) = self.recent.principal(bearer.digest, &self.keys, now()).await {
            return Ok(principal);
        }
        let token = UnverifiedToken::parse(bearer.token)?;
        // The issuer that the token names picks the validator, and that one its algorithm.
        if let Some(own) = self.own.as_ref().filter(|own| own.is_named_by(&token)) {
            return own.principal(&token, now()).await.map(Arc::new);
        }
        token.pin("RS256")?;
        let verified = match self.keys.find(token.key_id()).await.and_then(|key| token.verify(key)) {
            Ok(verified) => verified,
            // Tokens for Graph can be verified by nobody but Graph, and those of another cloud have other keys: all are
            // refused, and the client learns its real mistake.
            Err(error @ (TokenError::UnknownKey | TokenError::Signature)) => {
                return Err(self.expected.recognise_mistake(token.unverified_claims()).unwrap_or(error));
            }
            Err(error) => return Err(error),
        };
        let now = now();
        let principal = Arc::new(claims::principal(&verified, bearer, &self.expected, now)?);
        self.recent.remember(bearer, verified.into_key(), &principal, now).await;
        Ok(principal)
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}
