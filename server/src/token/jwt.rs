//! The compact form of a signed JWT: strict parsing, and verification with one key and one algorithm.
//!
//! jsonwebtoken only verifies signatures here. Its own claim checks accept an unknown `crit`, a missing audience and
//! a future `nbf` by default, and its parser keeps the last of duplicate members.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::error::TokenError;
use super::keys::Key;
use crate::strict_json;

/// Longest token. Entra's access tokens are shorter: about 12 KiB with 200 groups.
const MAXIMUM_LENGTH: usize = 16 * 1024;

/// The claims or the header of a token.
pub(super) type Claims = Map<String, Value>;

/// A well-formed token that is not verified.
pub(super) struct UnverifiedToken<'a> {
    signed_part: &'a str,
    signature: &'a str,
    key_id: String,
    header: Claims,
    claims: Claims,
}

/// The claims of a verified token, and the key that verified it.
pub(super) struct VerifiedClaims {
    claims: Claims,
    key: Arc<Key>,
}

impl<'a> UnverifiedToken<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAXIMUM_LENGTH {
            return Err(TokenError::TooLong);
        }
        let not_three = TokenError::Malformed("it does not have three parts");
        let Some((signed_part, signature)) = token.rsplit_once('.') else { return Err(not_three) };
        let Some((header, claims)) = signed_part.split_once('.') else { return Err(not_three) };
        let header = object(header, "its header is not a JSON object in base64url, or has duplicate members")?;
        let claims = object(claims, "its claims are not a JSON object in base64url, or have duplicate members")?;

        if header.contains_key("crit") {
            return Err(TokenError::CriticalHeader);
        }
        let key_id = header.get("kid").and_then(Value::as_str).ok_or(TokenError::Malformed("its header has no kid"))?;
        Ok(Self { signed_part, signature, key_id: key_id.to_owned(), header, claims })
    }

    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Checks that the token uses the issuer's algorithm. The token must not choose the algorithm of a key (RFC 8725
    /// section 3.1). Keys in the header (jwk, jku, x5u, x5c) are ignored.
    pub(super) fn pin(&self, algorithm: &str) -> Result<(), TokenError> {
        match self.header.get("alg").and_then(Value::as_str) == Some(algorithm) {
            true => Ok(()),
            false => Err(TokenError::Algorithm),
        }
    }

    /// True if the header has this `typ`.
    pub(super) fn is_typed(&self, typ: &str) -> bool {
        self.header.get("typ").and_then(Value::as_str) == Some(typ)
    }

    /// Returns the signed part.
    pub(super) fn signed_part(&self) -> &str {
        self.signed_part
    }

    /// Returns the signature in base64url.
    pub(super) fn signature(&self) -> &str {
        self.signature
    }

    /// Returns the unverified claims. Use them only to describe a mistake, never to allow access.
    pub(super) fn unverified_claims(&self) -> &Claims {
        &self.claims
    }

    /// Verifies the RS256 signature and returns the claims.
    pub(super) fn verify(&self, key: Arc<Key>) -> Result<VerifiedClaims, TokenError> {
        self.pin("RS256")?;
        let message = self.signed_part.as_bytes();
        match jsonwebtoken::crypto::verify(self.signature, message, &key.verifies_with, Algorithm::RS256) {
            Ok(true) => Ok(VerifiedClaims { claims: self.claims.clone(), key }),
            Ok(false) | Err(_) => Err(TokenError::Signature),
        }
    }
}

impl VerifiedClaims {
    pub(super) fn as_claims(&self) -> &Claims {
        &self.claims
    }

    /// True if the key is for tokens of this tenant, whose version 2 issuer is `issuer`. Entra publishes one set of
    /// keys for many tenants, and each key names its issuers.
    pub(super) fn key_is_for(&self, issuer: &str, tenant: &str) -> bool {
        self.key.is_for(issuer, tenant)
    }

    pub(super) fn into_key(self) -> Arc<Key> {
        self.key
    }

    #[cfg(test)]
    pub(super) fn for_test(claims: Value, key: Arc<Key>) -> Self {
        Self { claims: claims.as_object().unwrap().clone(), key }
    }
}

fn object(part: &str, malformed: &'static str) -> Result<Claims, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed(malformed))?;
    match strict_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(TokenError::Malformed(malformed)),
    }
}
