//! Keys that sign JWTs with ES256 (RFC 7518 section 3.4), and their public halves as JWKs.

use std::fmt;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Value, json};

/// A failure to make a key or a signature: a defect of the cryptographic library.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the signature failed")]
pub struct SigningError;

/// A key that signs JWTs.
pub struct SigningKey {
    /// The key id (`kid`): the thumbprint of the public key (RFC 7638).
    pub key_id: String,
    pair: EcdsaKeyPair,
    verifying: DecodingKey,
    public: Value,
}

impl SigningKey {
    /// Returns a new random key. The private half stays in the library's memory, which is cleared when the key is
    /// dropped.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn generate() -> Result<Self, SigningError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| SigningError)?;
        Self::new(pair).map_err(|_| SigningError)
    }

    /// Returns the key of this pair. The curve must be P-256.
    pub(crate) fn new(pair: EcdsaKeyPair) -> Result<Self, Unspecified> {
        // Uncompressed: a byte 4, then both coordinates (SEC 1, 2.3.3).
        let point = pair.public_key().as_ref().strip_prefix(&[4]).and_then(|point| point.split_at_checked(32));
        let (x, y) = point.map(|(x, y)| (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))).ok_or(Unspecified)?;
        let mut public = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": "ES256" });
        let jwk: Jwk = serde_json::from_value(public.clone()).map_err(|_| Unspecified)?;
        let key_id = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| Unspecified)?;
        let verifying = DecodingKey::from_jwk(&jwk).map_err(|_| Unspecified)?;
        if let Some(members) = public.as_object_mut() {
            members.insert("kid".to_owned(), key_id.clone().into());
        }
        Ok(Self { key_id, pair, verifying, public })
    }

    /// Returns the public half, as a JWK (RFC 7517).
    pub fn public(&self) -> &Value {
        &self.public
    }

    /// Returns the public half, which verifies signatures of this key.
    pub fn verifying(&self) -> &DecodingKey {
        &self.verifying
    }

    /// Returns the signature in the format of JWS: r and s, 32 bytes each (RFC 7518, 3.4).
    ///
    /// # Errors
    /// If the library fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| SigningError)?;
        Ok(signature.as_ref().to_vec())
    }

    /// Returns a JWT with this type (`typ`) and these claims, in the compact form (RFC 7519).
    ///
    /// # Errors
    /// If the claims are not JSON, or the library fails.
    pub fn jwt(&self, typ: &str, claims: &impl Serialize) -> Result<SecretString, SigningError> {
        let header = json!({ "alg": "ES256", "typ": typ, "kid": self.key_id });
        let claims = serde_json::to_string(claims).map_err(|_| SigningError)?;
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.sign(message.as_bytes())?;
        Ok(SecretString::from(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn every_generated_key_is_different_and_verifies_only_its_own_jwts() {
        let [one, other] = [(); 2].map(|()| SigningKey::generate().unwrap());
        assert_ne!(one.key_id, other.key_id);
        let jwt = one.jwt("some+jwt", &json!({ "exp": 4_000_000_000_u64 })).unwrap();
        let validation = Validation::new(Algorithm::ES256);
        decode::<Value>(jwt.expose_secret(), one.verifying(), &validation).unwrap();
        decode::<Value>(jwt.expose_secret(), other.verifying(), &validation).unwrap_err();
        let header = decode_header(jwt.expose_secret()).unwrap();
        assert_eq!((header.typ.as_deref(), header.kid.as_deref()), (Some("some+jwt"), Some(&*one.key_id)));
    }

    #[test]
    fn the_jwk_has_only_the_public_key_and_its_thumbprint() {
        let key = SigningKey::generate().unwrap();
        let members: Vec<_> = key.public().as_object().unwrap().keys().collect();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        let jwk: Jwk = serde_json::from_value(key.public().clone()).unwrap();
        assert_eq!(key.public()["kid"], jwk.thumbprint(ThumbprintHash::SHA256).unwrap());
    }

    #[test]
    fn debug_output_has_only_the_id() {
        let key = SigningKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), format!("SigningKey {{ key_id: {:?}, .. }}", key.key_id));
    }
}
