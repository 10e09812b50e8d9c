//! Signing keys: their form in Entra's JWKS, and JSON Web Signatures (RFC 7515) with them.

use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    crypto::{sign, verify},
    jwk::{AlgorithmParameters, Jwk},
};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// A JSON object: a token's header or its claims.
pub(crate) type Object = Map<String, Value>;

/// One RSA key pair of 2048 bits with its certificate.
pub(crate) struct SigningKey {
    /// `kid` and `x5t`, which are equal in Entra.
    pub(crate) kid: String,
    modulus: String,
    exponent: String,
    certificate: String,
    public_pem: String,
    private: EncodingKey,
    public: DecodingKey,
}

impl SigningKey {
    pub(crate) fn generate() -> anyhow::Result<Arc<Self>> {
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
        let mut certificate = CertificateParams::new(Vec::new())?;
        certificate.distinguished_name.push(DnType::CommonName, "accounts.accesscontrol.windows.net");
        let certificate = certificate.self_signed(&pair)?;
        let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes())?;
        let jwk = Jwk::from_encoding_key(&private, Algorithm::RS256)?;
        let AlgorithmParameters::RSA(rsa) = jwk.algorithm else {
            anyhow::bail!("a generated RSA key is not an RSA key");
        };
        Ok(Arc::new(Self {
            kid: URL_SAFE_NO_PAD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate.der())),
            public: DecodingKey::from_rsa_components(&rsa.n, &rsa.e)?,
            modulus: rsa.n,
            exponent: rsa.e,
            certificate: STANDARD.encode(certificate.der()),
            public_pem: pair.public_key_pem(),
            private,
        }))
    }

    /// Returns the key as Entra publishes it: without `alg`.
    pub(crate) fn jwk(&self) -> Value {
        json!({
            "kty": "RSA", "use": "sig", "kid": self.kid, "x5t": self.kid,
            "n": self.modulus, "e": self.exponent, "x5c": [self.certificate],
        })
    }

    /// Signs `claims` with exactly this `header`. `alg` selects the signature. RS256 uses the key, and `none` has no
    /// signature. HS256 uses the public key's PEM as the secret, a confusion that a validator must refuse.
    pub(crate) fn sign(&self, header: &Object, claims: &Value) -> anyhow::Result<String> {
        let message = message(header, claims);
        let signature = match header.get("alg").and_then(Value::as_str) {
            Some("RS256") => sign(message.as_bytes(), &self.private, Algorithm::RS256)?,
            Some("HS256") => {
                sign(message.as_bytes(), &EncodingKey::from_secret(self.public_pem.as_bytes()), Algorithm::HS256)?
            }
            Some("none") => String::new(),
            other => anyhow::bail!("cannot sign with alg {other:?}: RS256, HS256 or none"),
        };
        Ok(format!("{message}.{signature}"))
    }

    /// Access token for Graph. The signature covers the SHA-256 of the header's `nonce`, so that the sent token does
    /// not verify. Only Graph is supposed to read it.
    pub(crate) fn sign_for_graph(&self, claims: &Value) -> anyhow::Result<String> {
        let nonce = random_token();
        let signed = self.sign(&self.header_with_nonce(&hashed(&nonce)), claims)?;
        let signature = signed.rsplit('.').next().context("a token has a signature")?;
        let message = message(&self.header_with_nonce(&nonce), claims);
        Ok(format!("{message}.{signature}"))
    }

    pub(crate) fn header(&self) -> Object {
        object(json!({"typ": "JWT", "alg": "RS256", "x5t": self.kid, "kid": self.kid}))
    }

    fn header_with_nonce(&self, nonce: &str) -> Object {
        let mut header = self.header();
        header.insert("nonce".to_owned(), nonce.into());
        header
    }
}

/// A token in its parts, without verification.
pub(crate) struct Unverified {
    pub(crate) header: Object,
    pub(crate) claims: Object,
    message: String,
    signature: String,
}

impl Unverified {
    /// Splits the token; `None` if it is not a JSON Web Token in compact form.
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let part = |text: &str| -> Option<Object> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
        Some(Self {
            header: part(header)?,
            claims: part(claims)?,
            message: message.to_owned(),
            signature: signature.to_owned(),
        })
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        text(&self.header, "kid")
    }

    pub(crate) fn claim(&self, name: &str) -> Option<&str> {
        text(&self.claims, name)
    }

    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.claims.get(name).and_then(Value::as_i64)
    }

    /// Returns whether `alg` is RS256 and the signature over the token is of this key.
    pub(crate) fn is_signed_by(&self, key: &DecodingKey) -> bool {
        text(&self.header, "alg") == Some("RS256")
            && verify(&self.signature, self.message.as_bytes(), key, Algorithm::RS256).unwrap_or(false)
    }

    pub(crate) fn is_signed_by_ours(&self, key: &SigningKey) -> bool {
        self.is_signed_by(&key.public)
    }

    /// Same as [`Self::is_signed_by_ours`], for a token from [`SigningKey::sign_for_graph`].
    pub(crate) fn is_signed_for_graph(&self, key: &SigningKey) -> bool {
        let Some(nonce) = text(&self.header, "nonce") else {
            return false;
        };
        let message = message(&key.header_with_nonce(&hashed(nonce)), &Value::Object(self.claims.clone()));
        verify(&self.signature, message.as_bytes(), &key.public, Algorithm::RS256).unwrap_or(false)
    }
}

/// 256 random bits as text, for codes, refresh tokens and nonces.
pub(crate) fn random_token() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// SHA-256 in base64url, as in PKCE's S256 and in pairwise subjects.
pub(crate) fn hashed(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text))
}

/// Converts a JSON object literal to a map. Anything else becomes an empty map.
pub(crate) fn object(value: Value) -> Object {
    match value {
        Value::Object(map) => map,
        _ => Object::new(),
    }
}

fn text<'a>(object: &'a Object, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

fn message(header: &Object, claims: &Value) -> String {
    let header = Value::Object(header.clone()).to_string();
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()))
}
