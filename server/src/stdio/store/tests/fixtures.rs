//! Test fixtures: a key store in memory, tokens, and folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use secrecy::SecretString;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::super::key::KeySource;
use super::super::{Account, KeptAccess, KeptTokens, Owner, StoreError, StoreKind, TokenStore};

/// The owner of the stores of most tests.
pub(in crate::stdio::store) fn owner() -> Owner {
    Owner {
        authority: "https://login.example".to_owned(),
        graph_url: "https://graph.example".to_owned(),
        tenant: "contoso.example".to_owned(),
        client_id: "11111111-1111-1111-1111-111111111111".to_owned(),
    }
}

/// Owners that differ in one part, and one whose parts are split differently.
pub(in crate::stdio::store) fn others() -> [Owner; 5] {
    let Owner { tenant, client_id, .. } = owner();
    [
        fabrikam(),
        Owner { client_id: "99999999-9999-9999-9999-999999999999".to_owned(), ..owner() },
        Owner { authority: "https://login.example:8443".to_owned(), ..owner() },
        Owner { graph_url: "https://graph.example:8443".to_owned(), ..owner() },
        Owner { tenant: tenant + &client_id, client_id: String::new(), ..owner() },
    ]
}

/// The owner in another tenant.
pub(super) fn fabrikam() -> Owner {
    Owner { tenant: "fabrikam.example".to_owned(), ..owner() }
}

/// A store of keys in memory.
#[derive(Default)]
pub(in crate::stdio::store) struct Keys {
    pub(super) kept: Mutex<BTreeMap<String, Vec<u8>>>,
    /// True while the store is unavailable.
    pub(super) away: AtomicBool,
}

impl Keys {
    pub(in crate::stdio::store) fn get(&self, user: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.present()?;
        Ok(self.kept.lock().unwrap().get(user).cloned().map(Zeroizing::new))
    }

    pub(in crate::stdio::store) fn set(&self, user: &str, text: &str) -> Result<(), StoreError> {
        self.present()?;
        self.kept.lock().unwrap().insert(user.to_owned(), text.as_bytes().to_vec());
        Ok(())
    }

    pub(in crate::stdio::store) fn delete(&self, user: &str) -> Result<bool, StoreError> {
        self.present()?;
        Ok(self.kept.lock().unwrap().remove(user).is_some())
    }

    fn present(&self) -> Result<(), StoreError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::NoKeyStore("it is away; bring it back".to_owned()));
        }
        Ok(())
    }
}

/// A folder with the stores of a client.
pub(super) struct Place {
    pub(super) folder: TempDir,
    pub(super) keys: Arc<Keys>,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), keys: Arc::default() }
    }

    /// Returns the folder of the store, which the store creates.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("data").join("mcp-entra")
    }

    pub(super) fn store(&self, kind: StoreKind) -> TokenStore {
        self.store_of(kind, owner())
    }

    pub(super) fn store_of(&self, kind: StoreKind, owner: Owner) -> TokenStore {
        let keys = KeySource::Test(Arc::clone(&self.keys));
        TokenStore { keys, ..TokenStore::new(kind, self.path(), owner) }
    }

    /// Returns names and contents of all files.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.path())
    }
}

/// Returns names and contents of all files of a folder.
pub(super) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let entries = entries.map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// Returns tokens with this refresh token.
pub(super) fn tokens(refresh_token: &str) -> KeptTokens {
    KeptTokens {
        account: Account {
            tenant_id: "22222222-2222-2222-2222-222222222222".to_owned(),
            object_id: "33333333-3333-3333-3333-333333333333".to_owned(),
            username: "megan \"M\" böwen@contoso.example".to_owned(),
        },
        issued_at: "2026-01-02T03:04:05.678901234Z".parse().unwrap(),
        refresh_token: SecretString::from(refresh_token),
        access: Some(KeptAccess {
            token: SecretString::from("the.access.token"),
            granted: BTreeSet::from(["mail.read".to_owned(), "user.read".to_owned()]),
            usable_until: "2030-01-02T03:04:05.678901234Z".parse().unwrap(),
        }),
    }
}
