//! Keys in the Credential Manager of Windows.

use std::collections::HashMap;
use std::time::Duration;

use keyring_core::Entry;
use keyring_core::api::CredentialStoreApi;
use windows_native_keyring_store::Store;

pub(super) const PLACE: &str = "the Windows Credential Manager";

pub(super) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const REMEDY: &str =
    "check that the Credential Manager service runs, and that this is a session of a person";

/// Returns the entry, which need not exist yet. By default, it would roam to the person's other machines, which do
/// not have the file.
pub(super) fn entry(service: &str, user: &str) -> keyring_core::Result<Entry> {
    Store::new()?.build(service, user, Some(&HashMap::from([("persistence", "Local")])))
}
