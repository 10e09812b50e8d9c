//! The key of the encrypted file, in the secure store of the operating system.

use zeroize::Zeroizing;

use super::error::StoreError;

#[cfg_attr(target_os = "linux", path = "key_linux.rs")]
#[cfg_attr(any(target_os = "macos", windows), path = "key_entry.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos", windows)), path = "key_nowhere.rs")]
mod os;

/// First part of each key's name. The second part, the user, is `<tenant>/<hash of the owner>`.
const SERVICE: &str = "mcp-entra";

/// The store of keys.
#[derive(Clone)]
pub(super) enum KeySource {
    /// The secure store of the operating system.
    Os,
    /// A store for tests.
    #[cfg(test)]
    Test(std::sync::Arc<super::tests::fixtures::Keys>),
}

impl KeySource {
    /// The store's name, for messages.
    pub(super) const PLACE: &str = os::PLACE;

    /// Returns the text of a key, if it exists.
    pub(super) async fn get(&self, user: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        match self {
            Self::Os => os::get(user).await,
            #[cfg(test)]
            Self::Test(keys) => keys.get(user),
        }
    }

    /// Stores the text of a key, replacing any old one.
    pub(super) async fn set(&self, user: &str, text: Zeroizing<String>) -> Result<(), StoreError> {
        match self {
            Self::Os => os::set(user, text).await,
            #[cfg(test)]
            Self::Test(keys) => keys.set(user, &text),
        }
    }

    /// Deletes a key. Returns true if it existed.
    pub(super) async fn delete(&self, user: &str) -> Result<bool, StoreError> {
        match self {
            Self::Os => os::delete(user).await,
            #[cfg(test)]
            Self::Test(keys) => keys.delete(user),
        }
    }
}
