//! Tokens of the signed-in account, stored between starts and shared by the processes of one person.
//!
//! A process takes the [lock](TokenStore::lock) for tokens, reads, refreshes, writes, and releases it. `files` does
//! file I/O, `format` the text, `sealed` the encryption, and `key` stores the key.

mod error;
mod files;
mod format;
mod key;
mod lock;
mod owner;
#[cfg_attr(unix, path = "private_unix.rs")]
#[cfg_attr(not(unix), path = "private_windows.rs")]
mod private;
mod sealed;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use directories::ProjectDirs;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::task::spawn_blocking;
use uuid::Uuid;
use zeroize::Zeroizing;

pub use error::{NotOpenable, StoreError};
pub use lock::{Lock, LockPurpose};
pub use owner::Owner;

use files::{Deleted, Files};
use key::KeySource;
use sealed::Key;

use crate::token::Account;

/// Storage of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// An encrypted file. Its key is in the secure store of the operating system.
    #[default]
    Os,
    /// An unencrypted file that only the owner may read.
    File,
    /// No storage: tokens end with the process.
    Memory,
}

/// The tokens of an account.
#[derive(Clone, Debug)]
pub struct KeptTokens {
    /// The account.
    pub account: Account,
    /// Time of issue, by the clock of this machine.
    pub issued_at: Timestamp,
    /// The last issued refresh token.
    pub refresh_token: SecretString,
    /// The last issued access token, if any.
    pub access: Option<KeptAccess>,
}

/// An access token for Graph.
#[derive(Clone, Debug)]
pub struct KeptAccess {
    /// The token in `Authorization: Bearer`.
    pub token: SecretString,
    /// The granted delegated permissions, by name in lower case.
    pub granted: BTreeSet<String>,
    /// Time from which the token is not used.
    pub usable_until: Timestamp,
}

/// The tokens of one owner.
#[derive(Clone)]
pub struct TokenStore {
    kind: StoreKind,
    owner: Owner,
    files: Files,
    keys: KeySource,
}

impl TokenStore {
    /// Returns the store of an owner. Nothing is read or written yet.
    pub fn new(kind: StoreKind, folder: PathBuf, owner: Owner) -> Self {
        Self { kind, files: Files::new(folder, owner.stem(), kind), owner, keys: KeySource::Os }
    }

    /// Returns the kind of storage.
    pub fn kind(&self) -> StoreKind {
        self.kind
    }

    /// Returns the stored tokens, if any.
    ///
    /// # Errors
    /// If the secure store is not usable, even if nothing is stored yet, because a sign-in would be lost. If a file
    /// exists but cannot be read or opened.
    pub async fn read(&self) -> Result<Option<KeptTokens>, StoreError> {
        if self.kind == StoreKind::Memory {
            return Ok(None);
        }
        let key = self.key().await?;
        self.open(key.as_ref()).await
    }

    /// Stores tokens, replacing older ones. The caller holds the lock for tokens.
    ///
    /// # Errors
    /// If a file exists that cannot be opened, because a newer program may have written it. If the tokens cannot be
    /// written.
    pub async fn write(&self, tokens: &KeptTokens) -> Result<(), StoreError> {
        if self.kind == StoreKind::Memory {
            return Ok(());
        }
        let key = self.key().await?;
        self.open(key.as_ref()).await?;
        self.keep(tokens, key).await
    }

    /// Stores tokens, even in place of a file that cannot be opened. The caller holds the lock for tokens.
    ///
    /// # Errors
    /// If a newer program wrote the file, or it cannot be read. If the tokens cannot be written.
    pub async fn replace(&self, tokens: &KeptTokens) -> Result<(), StoreError> {
        if self.kind == StoreKind::Memory {
            return Ok(());
        }
        let key = self.key().await?;
        self.may_replace(key.as_ref()).await?;
        self.keep(tokens, key).await
    }

    /// Deletes the owner's tokens and key in every kind of storage. Returns true if any existed. The caller holds the
    /// lock for tokens.
    ///
    /// # Errors
    /// If one of them cannot be deleted. The others are deleted anyway.
    pub async fn delete(&self) -> Result<bool, StoreError> {
        let files = self.files.clone();
        let files = blocking(move || files.delete()).await;
        let key = self.keys.delete(&self.owner.key_name()).await;
        let Deleted { encrypted, plain } = files?;
        match key {
            Ok(key) => Ok(encrypted || plain || key),
            Err(StoreError::NoKeyStore(why)) if encrypted => Err(StoreError::KeyStays(why)),
            // Nothing indicates that there was a key.
            Err(StoreError::NoKeyStore(_)) => Ok(plain),
            Err(error) => Err(error),
        }
    }

    /// Waits for the lock between processes. Returns `None` if it is not free within `patience`.
    ///
    /// # Errors
    /// If the folder cannot hold a lock.
    pub async fn lock(&self, purpose: LockPurpose, patience: Duration) -> Result<Option<Lock>, StoreError> {
        if self.kind == StoreKind::Memory {
            return Ok(Some(Lock::unshared()));
        }
        let files = self.files.clone();
        let (file, path) = blocking(move || files.open_lock(purpose)).await?;
        Lock::wait(file, path, patience).await
    }

    /// Returns a line about the storage of tokens, after a test with a file and a key of other names, which are then
    /// deleted.
    ///
    /// # Errors
    /// If tokens cannot be stored there.
    pub async fn describe(&self) -> Result<String, StoreError> {
        if self.kind == StoreKind::Memory {
            return Ok("tokens are only in memory and end with the process".to_owned());
        }
        let is_encrypted = self.kind == StoreKind::Os;
        if is_encrypted {
            self.probe_keys().await?;
        }
        self.may_replace(self.key().await?.as_ref()).await?;
        let files = self.files.clone();
        blocking(move || files.probe()).await?;
        let path = self.files.tokens().display();
        Ok(if is_encrypted {
            format!("tokens are stored encrypted in {path}; their key is in {}", KeySource::PLACE)
        } else {
            format!("tokens are stored without encryption in {path}")
        })
    }

    /// Returns the key of the encrypted file, if it exists. A damaged key counts as absent.
    async fn key(&self) -> Result<Option<Key>, StoreError> {
        if self.kind != StoreKind::Os {
            return Ok(None);
        }
        let text = self.keys.get(&self.owner.key_name()).await?;
        Ok(text.and_then(|text| Key::from_text(&text)))
    }

    /// Reads the file, and decrypts it with a key if necessary.
    async fn open(&self, key: Option<&Key>) -> Result<Option<KeptTokens>, StoreError> {
        let files = self.files.clone();
        let Some(content) = blocking(move || files.read()).await? else { return Ok(None) };
        let opened = if self.kind == StoreKind::Os {
            sealed::open(key, &self.owner, &content).and_then(|text| format::from_json(&self.owner, &text))
        } else {
            format::from_json(&self.owner, &content)
        };
        opened.map(Some).map_err(|why| StoreError::NotOpenable { path: self.files.tokens().to_owned(), why })
    }

    /// Refuses a file that no sign-in may replace.
    async fn may_replace(&self, key: Option<&Key>) -> Result<(), StoreError> {
        match self.open(key).await {
            Err(StoreError::NotOpenable { why, .. }) if why != NotOpenable::Newer => Ok(()),
            Ok(_) | Err(StoreError::Insecure { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes the file, encrypted with this or a new key if the kind of storage requires it.
    async fn keep(&self, tokens: &KeptTokens, key: Option<Key>) -> Result<(), StoreError> {
        let mut content = format::to_json(&self.owner, tokens)?;
        if self.kind == StoreKind::Os {
            let key = match key {
                Some(key) => key,
                None => self.new_key().await?,
            };
            content = Zeroizing::new(sealed::seal(&key, &self.owner, &content)?);
        }
        let files = self.files.clone();
        blocking(move || files.write(&content)).await
    }

    async fn new_key(&self) -> Result<Key, StoreError> {
        let key = Key::random()?;
        self.keys.set(&self.owner.key_name(), key.to_text()).await?;
        Ok(key)
    }

    /// Stores, reads and deletes a key with a unique name.
    async fn probe_keys(&self) -> Result<(), StoreError> {
        let name = format!("{} (probe {})", self.owner.key_name(), Uuid::new_v4());
        let text = Key::random()?.to_text();
        self.keys.set(&name, text.clone()).await?;
        let read = self.keys.get(&name).await;
        self.keys.delete(&name).await?;
        match read? {
            Some(read) if *read == *text.as_bytes() => Ok(()),
            _ => Err(StoreError::NoKeyStore("it does not return stored values; restart it".to_owned())),
        }
    }
}

/// Returns the folder for this person's files, if the operating system names one.
pub fn default_folder() -> Option<PathBuf> {
    ProjectDirs::from("", "", "mcp-entra").map(|folders| folders.data_local_dir().to_owned())
}

/// Runs file I/O on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.unwrap_or(Err(StoreError::Defect("a file operation was aborted")))
}
