//! Sealed values: authenticated encryption, bound to a purpose and an owner.
//!
//! The text is base64url of a version, the epoch's number, a nonce and AES-256-GCM. Each purpose has its own key;
//! issuer, purpose and owner are associated data. So a value opens only for its own purpose and owner.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::keys::{Epoch, KeyRing};
use crate::aes_gcm;

/// First byte of each value.
const VERSION: u8 = 1;

/// The purpose of a sealed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A registration, which is the client's id. It uses the epoch of registrations.
    Client,
    /// An authorization request, while the person reads the consent page.
    Request,
    /// A sign-in that continues at Entra.
    Transaction,
    /// An authorization code.
    Code,
    /// A session, with Entra's refresh token.
    Session,
    /// A refresh token of a client.
    RefreshToken,
    /// The sessions of one person.
    Owner,
    /// A browser's cookie.
    Browser,
    /// Claims that a person's next sign-in must satisfy.
    Challenge,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Self; 9] = [
        Self::Client,
        Self::Request,
        Self::Transaction,
        Self::Code,
        Self::Session,
        Self::RefreshToken,
        Self::Owner,
        Self::Browser,
        Self::Challenge,
    ];

    /// Returns the name. Values sealed under one name do not open under another.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Request => "request",
            Self::Transaction => "transaction",
            Self::Code => "code",
            Self::Session => "session",
            Self::RefreshToken => "refresh-token",
            Self::Owner => "owner",
            Self::Browser => "browser",
            Self::Challenge => "challenge",
        }
    }
}

/// The reason why a value cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The value belongs to another issuer, purpose or owner, was altered, or its epoch is no longer listed. The
    /// error does not distinguish these cases.
    #[error(
        "cannot open the sealed value: it was altered, belongs to another purpose or owner, or its key epoch is no longer listed"
    )]
    NotOpenable,
    /// The cryptographic library failed.
    #[error("the encryption failed")]
    Failed,
}

/// Seals and opens the values of one issuer.
#[derive(Clone, Debug)]
pub struct Sealer {
    ring: Arc<KeyRing>,
}

impl Sealer {
    /// Returns a sealer with the keys of this ring.
    pub fn new(ring: Arc<KeyRing>) -> Self {
        Self { ring }
    }

    /// Seals a value with the current epoch. [`Purpose::Client`] uses the epoch of registrations.
    pub fn seal(&self, purpose: Purpose, owner: &str, plain: &[u8]) -> Result<String, SealError> {
        self.seal_at(Timestamp::now().as_second(), purpose, owner, plain)
    }

    /// Seals a value at a given time, in seconds since 1970.
    pub fn seal_at(&self, now: i64, purpose: Purpose, owner: &str, plain: &[u8]) -> Result<String, SealError> {
        let epoch = match purpose {
            Purpose::Client => self.ring.registration(),
            _ => self.ring.sealing(now),
        };
        let header = header(epoch);
        let sealed = epoch
            .derive(&key_name(purpose))
            .and_then(|key| aes_gcm::seal(&key, &self.associated_data(&header, purpose, owner), plain))
            .map_err(|_| SealError::Failed)?;
        Ok(URL_SAFE_NO_PAD.encode([&header, sealed.as_slice()].concat()))
    }

    /// Seals a value as JSON, without an owner.
    pub(super) fn seal_value<T: Serialize>(&self, purpose: Purpose, value: &T) -> Result<String, SealError> {
        let plain = Zeroizing::new(serde_json::to_vec(value).map_err(|_| SealError::Failed)?);
        self.seal(purpose, "", &plain)
    }

    /// Opens a value from [`Self::seal_value`].
    pub(super) fn open_value<T: DeserializeOwned>(&self, purpose: Purpose, sealed: &str) -> Option<T> {
        let plain = self.open(purpose, "", sealed).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    /// Opens a value of any listed epoch. [`Purpose::Client`] opens only with the epoch of registrations.
    pub fn open(&self, purpose: Purpose, owner: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| SealError::NotOpenable)?;
        let (header, sealed) = bytes.split_first_chunk::<5>().ok_or(SealError::NotOpenable)?;
        let [VERSION, number @ ..] = *header else {
            return Err(SealError::NotOpenable);
        };
        let number = u32::from_be_bytes(number);
        let epoch = match purpose {
            Purpose::Client => Some(self.ring.registration()).filter(|epoch| epoch.number() == number),
            _ => self.ring.epoch(number),
        };
        epoch
            .ok_or(SealError::NotOpenable)?
            .derive(&key_name(purpose))
            .and_then(|key| aes_gcm::open(&key, &self.associated_data(header, purpose, owner), sealed))
            .map_err(|_| SealError::NotOpenable)
    }

    /// Returns the associated data. Zero bytes separate the parts, and no purpose or issuer contains one.
    fn associated_data(&self, header: &[u8; 5], purpose: Purpose, owner: &str) -> Vec<u8> {
        let issuer = self.ring.issuer();
        [header, purpose.name().as_bytes(), &[0], issuer.as_bytes(), &[0], owner.as_bytes()].concat()
    }
}

/// Returns version and epoch, in five bytes.
fn header(epoch: &Epoch) -> [u8; 5] {
    let [a, b, c, d] = epoch.number().to_be_bytes();
    [VERSION, a, b, c, d]
}

fn key_name(purpose: Purpose) -> String {
    format!("sealing {}", purpose.name())
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::{KeyEpoch, KeyEpochs};

    use super::*;

    const ISSUER: &str = "https://mcp.contoso.com/graph";
    const OWNER: &str = "owner";

    fn sealer(registration: u32, epochs: &[(u32, i64)], issuer: &str) -> Sealer {
        let epochs = epochs.iter().map(|&(number, used_from)| KeyEpoch { number, used_from }).collect();
        Sealer::new(Arc::new(KeyRing::for_test(&KeyEpochs { registration, epochs, after_compromise: None }, issuer)))
    }

    fn opened(sealer: &Sealer, purpose: Purpose, sealed: &str) -> bool {
        match sealer.open(purpose, OWNER, sealed) {
            Ok(text) => *text == *b"text",
            Err(error) => {
                assert_eq!(error, SealError::NotOpenable);
                false
            }
        }
    }

    #[test]
    fn a_value_opens_only_for_its_purpose() {
        let sealer = sealer(1, &[(1, 0)], ISSUER);
        for sealed_for in Purpose::ALL {
            let sealed = sealer.seal(sealed_for, OWNER, b"text").unwrap();
            for purpose in Purpose::ALL {
                assert_eq!(opened(&sealer, purpose, &sealed), purpose == sealed_for, "{sealed_for:?} as {purpose:?}");
            }
        }
    }

    #[test]
    fn a_value_opens_only_for_its_owner() {
        let sealer = sealer(1, &[(1, 0)], ISSUER);
        for purpose in Purpose::ALL {
            let sealed = sealer.seal(purpose, OWNER, b"text").unwrap();
            for other in ["", "Owner", "owner ", "owner\0", "\0owner", "other"] {
                assert_eq!(sealer.open(purpose, other, &sealed).err(), Some(SealError::NotOpenable), "{other:?}");
            }
        }
    }

    #[test]
    fn a_value_of_another_issuer_with_the_same_secret_does_not_open() {
        let ours = sealer(1, &[(1, 0)], ISSUER);
        for issuer in ["https://mcp.contoso.com/other", "https://mcp.contoso.com/graph/", "https://mcp.contoso.com"] {
            let theirs = sealer(1, &[(1, 0)], issuer);
            for purpose in Purpose::ALL {
                let sealed = ours.seal(purpose, OWNER, b"text").unwrap();
                assert!(opened(&ours, purpose, &sealed) && !opened(&theirs, purpose, &sealed), "{issuer} {purpose:?}");
            }
        }
    }

    #[test]
    fn epochs_overlap_until_one_is_no_longer_listed() {
        let (rolling, rolled) = (sealer(1, &[(2, 0), (3, 300)], ISSUER), sealer(1, &[(3, 300)], ISSUER));
        for purpose in Purpose::ALL.into_iter().filter(|purpose| *purpose != Purpose::Client) {
            let [old, new] = [299, 300].map(|now| rolling.seal_at(now, purpose, OWNER, b"text").unwrap());
            assert!(opened(&rolling, purpose, &old) && opened(&rolling, purpose, &new));
            assert!(!opened(&rolled, purpose, &old) && opened(&rolled, purpose, &new));
        }
    }

    #[test]
    fn registrations_have_an_epoch_of_their_own() {
        let (first, later) = (sealer(1, &[(1, 0), (2, 0)], ISSUER), sealer(1, &[(2, 0), (3, 0)], ISSUER));
        let client = first.seal(Purpose::Client, OWNER, b"text").unwrap();
        assert!(opened(&later, Purpose::Client, &client));
        let replaced = sealer(2, &[(1, 0), (2, 0)], ISSUER);
        assert!(!opened(&replaced, Purpose::Client, &client));
        let session = sealer(2, &[(1, 0)], ISSUER).seal(Purpose::Session, OWNER, b"text").unwrap();
        assert!(opened(&first, Purpose::Session, &session));
        assert!(!opened(&sealer(1, &[(2, 0)], ISSUER), Purpose::Session, &session));
    }

    #[test]
    fn no_altered_character_goes_unnoticed() {
        let sealer = sealer(1, &[(1, 0), (2, 0)], ISSUER);
        for purpose in [Purpose::Client, Purpose::Session] {
            let sealed = sealer.seal(purpose, OWNER, b"text").unwrap();
            for at in 0..sealed.len() {
                for other in "ABab09-_=+/ ".chars().filter(|other| !sealed[at..].starts_with(*other)) {
                    let mut altered = sealed.clone();
                    altered.replace_range(at..=at, &other.to_string());
                    assert!(!opened(&sealer, purpose, &altered), "{other} at {at}");
                }
                assert!(!opened(&sealer, purpose, &sealed[..at]), "the first {at}");
            }
            for longer in [format!("{sealed}A"), format!("{sealed}="), format!("{sealed}AAAA"), format!("A{sealed}")] {
                assert!(!opened(&sealer, purpose, &longer), "{longer}");
            }
        }
    }

    #[test]
    fn no_altered_bit_goes_unnoticed() {
        let sealer = sealer(1, &[(1, 0), (2, 0)], ISSUER);
        let bytes = URL_SAFE_NO_PAD.decode(sealer.seal(Purpose::Session, OWNER, b"text").unwrap()).unwrap();
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << bit;
            assert!(!opened(&sealer, Purpose::Session, &URL_SAFE_NO_PAD.encode(altered)), "bit {bit} of byte {at}");
        }
    }

    #[test]
    fn no_two_seals_of_a_value_are_the_same() {
        let sealer = sealer(1, &[(1, 0)], ISSUER);
        let seal = || sealer.seal(Purpose::Code, OWNER, b"text").unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn debug_output_has_no_secret() {
        let ring = format!("KeyRing {{ issuer: {ISSUER:?}, registration: 1, epochs: [1], .. }}");
        assert_eq!(format!("{:?}", sealer(1, &[(1, 0)], ISSUER)), format!("Sealer {{ ring: {ring} }}"));
    }
}
