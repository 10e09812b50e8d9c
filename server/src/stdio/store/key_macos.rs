//! Keys in the login keychain of macOS.

use std::time::Duration;

use apple_native_keyring_store::keychain::Store;
use keyring_core::Entry;
use keyring_core::api::CredentialStoreApi;

pub(super) const PLACE: &str = "the login keychain";

/// Time for the person to answer the keychain's question. It asks again about a changed program.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const REMEDY: &str = "unlock the login keychain in Keychain Access, and allow this program to use its key";

/// Returns the keychain's entry, which need not exist yet. `Store::new` selects the login keychain.
pub(super) fn entry(service: &str, user: &str) -> keyring_core::Result<Entry> {
    Store::new()?.build(service, user, None)
}
