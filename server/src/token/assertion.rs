//! Access tokens with their digests. Each digest is computed once, when the token arrives.

use std::fmt;

use secrecy::SecretString;
use sha2::{Digest, Sha256};

use super::session::{SessionError, SessionOfToken};

/// SHA-256 of a token. Caches use it as a key and hold no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

/// Entra's access token of a user: the assertion of an on-behalf-of exchange.
#[derive(Clone)]
pub struct Assertion {
    source: Source,
    digest: TokenDigest,
}

/// The location of Entra's token.
#[derive(Clone)]
enum Source {
    /// The received token itself.
    Token(SecretString),
    /// The session of the received token.
    Session(SessionOfToken),
}

impl AsRef<[u8]> for TokenDigest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TokenDigest {
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl Assertion {
    /// Returns the assertion for this token, which has this digest.
    pub(super) fn new(token: SecretString, digest: TokenDigest) -> Self {
        Self { source: Source::Token(token), digest }
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self::new("assertion".into(), TokenDigest::of("assertion"))
    }

    /// Returns the assertion for Entra's token in this session. All tokens of a session share one digest, because
    /// they come from the same sign-in.
    pub(super) fn of_session(session: SessionOfToken) -> Self {
        let digest = TokenDigest::of(session.id());
        Self { source: Source::Session(session), digest }
    }

    /// Returns Entra's token.
    ///
    /// # Errors
    /// If the session of the token has ended or cannot be read.
    pub async fn token(&self) -> Result<SecretString, SessionError> {
        match &self.source {
            Source::Token(token) => Ok(token.clone()),
            Source::Session(session) => session.entra_token().await,
        }
    }

    /// Returns the session of the token, or none for a token of Entra.
    pub fn session(&self) -> Option<&SessionOfToken> {
        match &self.source {
            Source::Token(_) => None,
            Source::Session(session) => Some(session),
        }
    }

    /// Returns the digest of the received token.
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Assertion")
            .field("session", &self.session().map(SessionOfToken::id))
            .finish_non_exhaustive()
    }
}
