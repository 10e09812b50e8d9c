//! Key epochs: random secrets from which the keys for each purpose are derived.
//!
//! An epoch is a file that all replicas share. HKDF-SHA-256 (RFC 5869) derives each key from it, by purpose, issuer
//! and epoch. So replicas have the same keys without communication, and two servers with the same file share no keys.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::DecodingKey;
use mcp_entra_policy::KeyEpochs;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::es256::SigningKey;

/// Salt of every derivation. A new derivation scheme must change it.
const SALT: &[u8] = b"mcp-entra authorization server 1";
/// Shortest secret of an epoch, in bytes.
const SHORTEST_SECRET: usize = 32;
/// Attempts to derive a private key. One in 2³² candidates is not valid.
const ATTEMPTS: u8 = 4;

/// The reason why there is no key ring.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// The configuration names no epoch.
    #[error(
        "authorizationServer.keys.epochs is empty; name the epoch that signs, and put its file into the key folder"
    )]
    NoEpoch,
    /// The file of an epoch cannot be read.
    #[error(
        "the configuration names key epoch {epoch}, but {path} cannot be read ({problem}); mount the Secret of this epoch \
         there, or take the epoch out of authorizationServer.keys",
        path = path.display()
    )]
    Unreadable {
        /// Number of the epoch.
        epoch: u32,
        /// Its file.
        path: PathBuf,
        /// Error of the operating system.
        problem: std::io::Error,
    },
    /// The file of an epoch is too short for a secret.
    #[error(
        "key epoch {epoch} has {length} bytes, fewer than {SHORTEST_SECRET}; replace it with a new epoch of \
         {SHORTEST_SECRET} random bytes"
    )]
    TooShort {
        /// Number of the epoch.
        epoch: u32,
        /// Length of its file.
        length: usize,
    },
    /// The keys of an epoch cannot be derived.
    #[error("no keys can be derived from key epoch {epoch}; replace it with a new epoch")]
    Derivation {
        /// Number of the epoch.
        epoch: u32,
    },
}

/// The keys of one issuer, by epoch.
pub struct KeyRing {
    issuer: String,
    after_compromise: Option<String>,
    registration: Epoch,
    oldest: SigningEpoch,
    newer: Vec<SigningEpoch>,
}

/// An epoch, from which the keys of an issuer are derived.
pub(super) struct Epoch {
    number: u32,
    root: Prk,
    issuer: String,
}

struct SigningEpoch {
    epoch: Epoch,
    used_from: i64,
    signing: SigningKey,
}

impl KeyRing {
    /// Reads the epochs from this folder, where each is a file named by its number. Blocks.
    pub fn read(folder: &Path, keys: &KeyEpochs, issuer: &str) -> Result<Self, KeyRingError> {
        Self::of(keys, issuer, |epoch| {
            let path = folder.join(epoch.to_string());
            let secret = std::fs::read(&path).map_err(|problem| KeyRingError::Unreadable { epoch, path, problem })?;
            Ok(Zeroizing::new(secret))
        })
    }

    fn of(
        keys: &KeyEpochs,
        issuer: &str,
        secret: impl Fn(u32) -> Result<Zeroizing<Vec<u8>>, KeyRingError>,
    ) -> Result<Self, KeyRingError> {
        let epoch = |number| Epoch::new(number, &secret(number)?, issuer);
        let mut epochs = keys.epochs.iter().map(|key| SigningEpoch::new(epoch(key.number)?, key.used_from));
        Ok(Self {
            issuer: issuer.to_owned(),
            after_compromise: keys.after_compromise.clone(),
            registration: epoch(keys.registration)?,
            oldest: epochs.next().ok_or(KeyRingError::NoEpoch)??,
            newer: epochs.collect::<Result<_, _>>()?,
        })
    }

    /// Returns a ring for tests. The secret of each epoch is its number, repeated.
    #[cfg(test)]
    pub(crate) fn for_test(keys: &KeyEpochs, issuer: &str) -> Self {
        Self::of(keys, issuer, |number| Ok(Zeroizing::new(number.to_be_bytes().repeat(8)))).unwrap()
    }

    /// True if these keys were made after this compromise, or there was none.
    pub fn are_sound(&self, compromise: Option<&str>) -> bool {
        compromise.is_none() || compromise == self.after_compromise.as_deref()
    }

    /// Returns the signing key at this time, in seconds since 1970. It belongs to the last epoch that has started, or
    /// to the first epoch if none has.
    pub fn signing(&self, now: i64) -> &SigningKey {
        &self.current(now).signing
    }

    /// Returns the verification key for this `kid`, if its epoch is listed.
    pub fn verifying(&self, key_id: &str) -> Option<&DecodingKey> {
        self.all().find(|epoch| epoch.signing.key_id == key_id).map(|epoch| epoch.signing.verifying())
    }

    /// Returns the public keys of all listed epochs, as a JWK Set (RFC 7517). An epoch is published before it signs.
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.all().map(|epoch| epoch.signing.public()).collect::<Vec<_>>() })
    }

    /// Returns the issuer of these keys.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns the epoch of registrations.
    pub(super) fn registration(&self) -> &Epoch {
        &self.registration
    }

    /// Returns the epoch for sealing at this time, in seconds since 1970.
    pub(super) fn sealing(&self, now: i64) -> &Epoch {
        &self.current(now).epoch
    }

    /// Returns the listed epoch with this number.
    pub(super) fn epoch(&self, number: u32) -> Option<&Epoch> {
        self.all().map(|epoch| &epoch.epoch).find(|epoch| epoch.number == number)
    }

    fn current(&self, now: i64) -> &SigningEpoch {
        self.newer.iter().rev().find(|epoch| epoch.used_from <= now).unwrap_or(&self.oldest)
    }

    fn all(&self) -> impl Iterator<Item = &SigningEpoch> {
        std::iter::once(&self.oldest).chain(&self.newer)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epochs: Vec<_> = self.all().map(|epoch| epoch.epoch.number).collect();
        formatter
            .debug_struct("KeyRing")
            .field("issuer", &self.issuer)
            .field("registration", &self.registration.number)
            .field("epochs", &epochs)
            .finish_non_exhaustive()
    }
}

impl Epoch {
    fn new(number: u32, secret: &[u8], issuer: &str) -> Result<Self, KeyRingError> {
        if secret.len() < SHORTEST_SECRET {
            return Err(KeyRingError::TooShort { epoch: number, length: secret.len() });
        }
        Ok(Self { number, root: Salt::new(HKDF_SHA256, SALT).extract(secret), issuer: issuer.to_owned() })
    }

    /// Returns the number of the epoch.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Derives the key of a purpose. A zero byte ends the purpose, so none contains one.
    pub(super) fn derive(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, Unspecified> {
        let info = [purpose.as_bytes(), &[0], &self.number.to_be_bytes(), self.issuer.as_bytes()];
        let mut key = Zeroizing::new([0; 32]);
        self.root.expand(&info, HKDF_SHA256)?.fill(&mut *key)?;
        Ok(key)
    }
}

impl SigningEpoch {
    fn new(epoch: Epoch, used_from: i64) -> Result<Self, KeyRingError> {
        match (0..ATTEMPTS).find_map(|attempt| signing_key(&epoch, attempt).ok()) {
            Some(signing) => Ok(Self { epoch, used_from, signing }),
            None => Err(KeyRingError::Derivation { epoch: epoch.number }),
        }
    }
}

/// Returns the epoch's signing key for access tokens.
fn signing_key(epoch: &Epoch, attempt: u8) -> Result<SigningKey, Unspecified> {
    let private = epoch.derive(&format!("signing {attempt}"))?;
    let public = PrivateKey::from_private_key(&ECDH_P256, &*private)?.compute_public_key()?;
    let pair =
        EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &*private, public.as_ref());
    SigningKey::new(pair.map_err(|_| Unspecified)?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::crypto::verify;
    use jsonwebtoken::{Algorithm, Validation, decode};
    use mcp_entra_policy::KeyEpoch;
    use secrecy::ExposeSecret;

    use super::*;

    const ISSUER: &str = "https://mcp.contoso.com/graph";

    fn epochs(registration: u32, epochs: &[(u32, i64)]) -> KeyEpochs {
        let epochs = epochs.iter().map(|&(number, used_from)| KeyEpoch { number, used_from }).collect();
        KeyEpochs { registration, epochs, after_compromise: None }
    }

    fn ring(listed: &[(u32, i64)], issuer: &str) -> KeyRing {
        KeyRing::for_test(&epochs(1, listed), issuer)
    }

    fn folder(files: &[(&str, usize)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, length) in files {
            std::fs::write(folder.path().join(name), vec![7; *length]).unwrap();
        }
        folder
    }

    #[test]
    fn the_newest_active_epoch_signs() {
        let ring = ring(&[(1, 100), (2, 200), (3, 300)], ISSUER);
        let id = |number| ring.all().find(|epoch| epoch.epoch.number == number).unwrap().signing.key_id.clone();
        for (now, number) in [(0, 1), (199, 1), (200, 2), (299, 2), (300, 3), (i64::MAX, 3)] {
            assert_eq!(ring.signing(now).key_id, id(number), "at {now}");
            assert_eq!(ring.sealing(now).number(), number, "at {now}");
        }
    }

    #[test]
    fn a_signed_token_verifies_as_es256_by_its_key_id_and_by_the_published_key() {
        let ring = ring(&[(1, 0), (2, 200)], ISSUER);
        for now in [100, 200] {
            let key = ring.signing(now);
            let token = key.jwt("at+jwt", &json!({ "exp": 4_000_000_000_u64 })).unwrap();
            let published =
                ring.jwks()["keys"].as_array().unwrap().iter().find(|jwk| jwk["kid"] == *key.key_id).cloned();
            let published = DecodingKey::from_jwk(&serde_json::from_value(published.unwrap()).unwrap()).unwrap();
            for verifying in [ring.verifying(&key.key_id).unwrap(), &published] {
                decode::<Value>(token.expose_secret(), verifying, &Validation::new(Algorithm::ES256)).unwrap();
            }
        }
    }

    #[test]
    fn a_signature_is_of_one_epoch_message_and_issuer() {
        let ours = ring(&[(1, 0), (2, 200)], ISSUER);
        let key = ours.signing(0);
        let signature = URL_SAFE_NO_PAD.encode(key.sign(b"message").unwrap());
        let verified = |ring: &KeyRing, key_id: &str, message: &[u8]| {
            verify(&signature, message, ring.verifying(key_id).unwrap(), Algorithm::ES256).unwrap()
        };
        assert!(verified(&ours, &key.key_id, b"message"));
        assert!(!verified(&ours, &key.key_id, b"massage"));
        assert!(!verified(&ours, &ours.signing(200).key_id, b"message"));
        let other = ring(&[(1, 0)], "https://mcp.contoso.com/other");
        assert!(other.verifying(&key.key_id).is_none());
        assert!(!verified(&other, &other.signing(0).key_id, b"message"));
    }

    #[test]
    fn an_epoch_that_is_no_longer_listed_verifies_nothing() {
        let (before, after) = (ring(&[(1, 0), (2, 200)], ISSUER), ring(&[(2, 200)], ISSUER));
        let [first, second] = [0, 200].map(|now| before.signing(now).key_id.clone());
        assert!(before.verifying(&first).is_some() && before.verifying(&second).is_some());
        assert!(after.verifying(&first).is_none() && after.verifying(&second).is_some());
    }

    #[test]
    fn every_purpose_issuer_and_epoch_has_keys_of_its_own() {
        let mut keys = HashSet::new();
        for issuer in [ISSUER, "https://mcp.contoso.com/other", "https://mcp.contoso.com/graph/"] {
            for number in [1, 2] {
                let epoch = Epoch::new(number, &[9; 32], issuer).unwrap();
                for purpose in ["sealing client", "sealing session", "signing 0", "signing 1"] {
                    assert!(keys.insert(*epoch.derive(purpose).unwrap()), "{issuer} {number} {purpose}");
                }
            }
        }
    }

    #[test]
    fn replicas_with_the_same_file_have_the_same_keys() {
        let folder = folder(&[("1", 32), ("4", 40)]);
        let read = || KeyRing::read(folder.path(), &epochs(1, &[(4, 0)]), ISSUER).unwrap();
        assert_eq!(read().jwks(), read().jwks());
        assert_eq!(read().signing(0).key_id, read().jwks()["keys"][0]["kid"]);
        assert_ne!(read().jwks(), KeyRing::read(folder.path(), &epochs(1, &[(1, 0)]), ISSUER).unwrap().jwks());
    }

    #[test]
    fn only_public_keys_are_published() {
        let ring = ring(&[(1, 0), (2, 200)], ISSUER);
        for jwk in ring.jwks()["keys"].as_array().unwrap() {
            let members: Vec<_> = jwk.as_object().unwrap().keys().collect();
            assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        }
    }

    #[test]
    fn an_epoch_without_a_usable_file_is_refused_with_the_next_step() {
        let folder = folder(&[("1", 32), ("2", 31), ("3", 0)]);
        for (keys, text) in [
            (epochs(1, &[]), "authorizationServer.keys.epochs is empty"),
            (epochs(1, &[(1, 0), (2, 0)]), "key epoch 2 has 31 bytes, fewer than 32; replace it"),
            (epochs(3, &[(1, 0)]), "key epoch 3 has 0 bytes"),
            (epochs(1, &[(1, 0), (9, 0)]), "mount the Secret of this epoch there"),
            (epochs(9, &[(1, 0)]), "names key epoch 9"),
        ] {
            let error = KeyRing::read(folder.path(), &keys, ISSUER).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        KeyRing::read(folder.path(), &epochs(1, &[(1, 0)]), ISSUER).unwrap();
    }

    #[test]
    fn debug_output_has_no_secret() {
        let ring = ring(&[(1, 0), (2, 200)], ISSUER);
        let text = format!("{ring:?}");
        assert_eq!(text, format!("KeyRing {{ issuer: {ISSUER:?}, registration: 1, epochs: [1, 2], .. }}"));
    }
}
