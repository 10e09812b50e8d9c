//! The encrypted file: magic and version, nonce, AES-256-GCM ciphertext with its tag.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Owner;
use super::error::{NotOpenable, StoreError};
use crate::aes_gcm;

/// First bytes of every version of the format. One byte with the version follows.
const MAGIC: &[u8] = b"MCPENTRA";
const VERSION: u8 = 1;

/// The key of the encrypted file.
pub(super) struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// Returns a new random key.
    pub(super) fn random() -> Result<Self, StoreError> {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| StoreError::Defect("the system has no random numbers"))?;
        Ok(Self(bytes))
    }

    /// Returns the key as base64, because some secure stores accept only text.
    pub(super) fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }

    /// Parses a key from base64. Returns `None` if the text is not a key.
    pub(super) fn from_text(text: &[u8]) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }
}

/// Returns the associated data, so that a file opens only for its owner.
fn associated_data(owner: &Owner) -> Vec<u8> {
    [MAGIC, &[VERSION], owner.text().as_bytes()].concat()
}

/// Encrypts the content of a file.
pub(super) fn seal(key: &Key, owner: &Owner, text: &[u8]) -> Result<Vec<u8>, StoreError> {
    let sealed = aes_gcm::seal(&key.0, &associated_data(owner), text)
        .map_err(|_| StoreError::Defect("the encryption failed"))?;
    Ok([MAGIC, &[VERSION], &sealed].concat())
}

/// Decrypts the content of a file.
pub(super) fn open(key: Option<&Key>, owner: &Owner, content: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpenable> {
    let (version, sealed) = content.strip_prefix(MAGIC).and_then(<[u8]>::split_first).ok_or(NotOpenable::Damaged)?;
    match *version {
        VERSION => {}
        0 => return Err(NotOpenable::Damaged),
        _ => return Err(NotOpenable::Newer),
    }
    let key = key.ok_or(NotOpenable::NoKey)?;
    aes_gcm::open(&key.0, &associated_data(owner), sealed).map_err(|_| NotOpenable::WrongKey)
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixtures::{others, owner};
    use super::{Key, MAGIC, NotOpenable, open, seal};

    fn sealed(key: &Key) -> Vec<u8> {
        seal(key, &owner(), b"text").unwrap()
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let key = Key::random().unwrap();
        let content = sealed(&key);
        assert_eq!(**open(Some(&key), &owner(), &content).unwrap(), *b"text");
        for at in 0..content.len() {
            for bit in 0..8 {
                let mut flipped = content.clone();
                flipped[at] ^= 1 << bit;
                let expected = match at {
                    at if at < MAGIC.len() => NotOpenable::Damaged,
                    at if at == MAGIC.len() && flipped[at] == 0 => NotOpenable::Damaged,
                    at if at == MAGIC.len() => NotOpenable::Newer,
                    _ => NotOpenable::WrongKey,
                };
                assert_eq!(open(Some(&key), &owner(), &flipped).err(), Some(expected), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn no_part_of_a_file_opens() {
        let key = Key::random().unwrap();
        let content = sealed(&key);
        for length in 0..content.len() {
            assert!(open(Some(&key), &owner(), &content[..length]).is_err(), "{length}");
        }
        let longer = [content.as_slice(), b"\0"].concat();
        assert_eq!(open(Some(&key), &owner(), &longer).err(), Some(NotOpenable::WrongKey));
    }

    #[test]
    fn a_file_opens_only_for_its_owner() {
        let key = Key::random().unwrap();
        let content = sealed(&key);
        for other in others() {
            assert_eq!(open(Some(&key), &other, &content).err(), Some(NotOpenable::WrongKey), "{other:?}");
        }
    }

    #[test]
    fn no_two_files_of_the_same_text_are_the_same() {
        let key = Key::random().unwrap();
        assert_ne!(sealed(&key), sealed(&key));
    }

    #[test]
    fn a_key_is_read_only_from_its_own_text() {
        let key = Key::random().unwrap();
        let text = key.to_text();
        assert_eq!(text.len(), 44);
        assert_eq!(*Key::from_text(text.as_bytes()).unwrap().0, *key.0);
        for other in [&text.as_bytes()[..43], b"", b"c2hvcnQ=", &[text.as_bytes(), b"AAAA"].concat()] {
            assert!(Key::from_text(other).is_none());
        }
    }
}
