//! Authenticated encryption with AES-256-GCM: a random nonce, then the ciphertext with its tag.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use zeroize::Zeroizing;

/// Encrypts a text; returns nonce, ciphertext and tag. Decryption needs the same associated data. A key is good for
/// 2³² texts (NIST SP 800-38D, 8.3).
pub(crate) fn seal(key: &[u8; 32], associated: &[u8], text: &[u8]) -> Result<Vec<u8>, Unspecified> {
    // The capacity includes the tag. Otherwise the vector would grow and leave a copy of the text in memory.
    let mut sealed = Zeroizing::new(Vec::with_capacity(text.len() + AES_256_GCM.tag_len()));
    sealed.extend_from_slice(text);
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key)?;
    let nonce = cipher.seal_in_place_append_tag(Aad::from(associated), &mut *sealed)?;
    Ok([nonce.as_ref().as_slice(), &sealed].concat())
}

/// Decrypts the output of [`seal`].
pub(crate) fn open(key: &[u8; 32], associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
    let (nonce, ciphertext) = sealed.split_first_chunk().ok_or(Unspecified)?;
    let mut text = Zeroizing::new(ciphertext.to_vec());
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key)?;
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = cipher.open_in_place(nonce, Aad::from(associated), &mut text)?.len();
    text.truncate(length);
    Ok(text)
}
