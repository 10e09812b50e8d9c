//! Access tokens with their digests: each digest is taken once, where the token comes in.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// SHA-256 of a token. It stands for the token in the keys of caches, none of which holds a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

/// A token as it came in, with its digest.
#[derive(Clone, Copy)]
pub(super) struct Hashed<'a> {
    pub(super) token: &'a str,
    pub(super) digest: TokenDigest,
}

/// Access token of a user: the assertion of an on-behalf-of exchange.
#[derive(Clone, Debug)]
pub struct Assertion {
    token: SecretString,
    digest: TokenDigest,
}

impl AsRef<[u8]> for TokenDigest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> Hashed<'a> {
    pub(super) fn new(token: &'a str) -> Self {
        Self { token, digest: TokenDigest(Sha256::digest(token).into()) }
    }
}

impl Assertion {
    /// The assertion that is this token.
    pub fn new(token: &str) -> Self {
        Hashed::new(token).into()
    }

    /// The token itself.
    pub fn expose_secret(&self) -> &str {
        self.token.expose_secret()
    }

    /// The digest of the token.
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }
}

impl From<Hashed<'_>> for Assertion {
    fn from(Hashed { token, digest }: Hashed<'_>) -> Self {
        Self { token: SecretString::from(token), digest }
    }
}
