//! Tokens of the signed-in account, kept between starts and shared by the processes of one person.
//!
//! A process takes the [lock](TokenStore::lock) for tokens, reads, refreshes, writes, and lets go. `files` does the I/O on
//! files, `format` knows their text, `sealed` encrypts it, and `key` keeps the key.

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

/// The place in which tokens are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// An encrypted file, whose key is in the secure store of the operating system.
    #[default]
    Os,
    /// A file that nobody else may read, without encryption.
    File,
    /// Nowhere: tokens end with the process.
    Memory,
}

/// The tokens of an account.
#[derive(Clone, Debug)]
pub struct KeptTokens {
    /// The account.
    pub account: Account,
    /// Time at which they were issued, by the clock of this machine.
    pub issued_at: Timestamp,
    /// The refresh token that was issued last.
    pub refresh_token: SecretString,
    /// The access token that was issued last, if any.
    pub access: Option<KeptAccess>,
}

/// An access token for Graph.
#[derive(Clone, Debug)]
pub struct KeptAccess {
    /// The text behind `Authorization: Bearer`.
    pub token: SecretString,
    /// The delegated permissions that it carries, by name in lower case.
    pub granted: BTreeSet<String>,
    /// Time from which it is no longer handed out.
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
    /// The store of an owner. Nothing is read or written yet.
    pub fn new(kind: StoreKind, folder: PathBuf, owner: Owner) -> Self {
        Self { kind, files: Files::new(folder, owner.stem(), kind), owner, keys: KeySource::Os }
    }

    /// The place in which tokens are kept.
    pub fn kind(&self) -> StoreKind {
        self.kind
    }

    /// Returns the tokens that are kept, if any.
    ///
    /// # Errors
    /// If the secure store cannot be used, even where nothing is kept yet: a sign-in would be lost. If a file is there
    /// that cannot be read or opened.
    pub async fn read(&self) -> Result<Option<KeptTokens>, StoreError> {
        if self.kind == StoreKind::Memory {
            return Ok(None);
        }
        let key = self.key().await?;
        self.open(key.as_ref()).await
    }

    /// Keeps tokens in place of those that are kept. The caller holds the lock for tokens.
    ///
    /// # Errors
    /// If a file is there that cannot be opened: it may be a newer program's. If the tokens cannot be written.
    pub async fn write(&self, tokens: &KeptTokens) -> Result<(), StoreError> {
        if self.kind == StoreKind::Memory {
            return Ok(());
        }
        let key = self.key().await?;
        self.open(key.as_ref()).await?;
        self.keep(tokens, key).await
    }

    /// Keeps tokens in place of what is there, even a file that cannot be opened. The caller holds the lock for tokens.
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

    /// Deletes the tokens of the owner and their key, whatever kind of store keeps them. Says whether there was any of
    /// them. The caller holds the lock for tokens.
    ///
    /// # Errors
    /// If one of them stays. The others are deleted all the same.
    pub async fn delete(&self) -> Result<bool, StoreError> {
        let files = self.files.clone();
        let files = blocking(move || files.delete()).await;
        let key = self.keys.delete(&self.owner.key_name()).await;
        let Deleted { encrypted, plain } = files?;
        match key {
            Ok(key) => Ok(encrypted || plain || key),
            Err(StoreError::NoKeyStore(why)) if encrypted => Err(StoreError::KeyStays(why)),
            // Nothing shows that there was a key.
            Err(StoreError::NoKeyStore(_)) => Ok(plain),
            Err(error) => Err(error),
        }
    }

    /// Waits for the lock among processes. `None`: another holds it for longer than `patience`.
    ///
    /// # Errors
    /// If there can be no lock in the folder.
    pub async fn lock(&self, purpose: LockPurpose, patience: Duration) -> Result<Option<Lock>, StoreError> {
        if self.kind == StoreKind::Memory {
            return Ok(Some(Lock::unshared()));
        }
        let files = self.files.clone();
        let (file, path) = blocking(move || files.open_lock(purpose)).await?;
        Lock::wait(file, path, patience).await
    }

    /// Returns a line that says where tokens are kept, once it is tried that they can be: with a file and a key of
    /// other names, which are deleted again.
    ///
    /// # Errors
    /// If tokens cannot be kept there.
    pub async fn describe(&self) -> Result<String, StoreError> {
        if self.kind == StoreKind::Memory {
            return Ok("tokens are kept in memory, and end with the process".to_owned());
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
            format!("tokens are kept encrypted in {path}; their key is in {}", KeySource::PLACE)
        } else {
            format!("tokens are kept without encryption in {path}")
        })
    }

    /// Returns the key of the encrypted file, if there is one. A damaged key counts as none.
    async fn key(&self) -> Result<Option<Key>, StoreError> {
        if self.kind != StoreKind::Os {
            return Ok(None);
        }
        let text = self.keys.get(&self.owner.key_name()).await?;
        Ok(text.and_then(|text| Key::from_text(&text)))
    }

    /// Reads the file, and opens it with a key if it is encrypted.
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

    /// Writes the file, encrypted with a key or a new one if it is to be.
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

    /// Keeps, reads and deletes a key under a name that nobody else uses.
    async fn probe_keys(&self) -> Result<(), StoreError> {
        let name = format!("{} (probe {})", self.owner.key_name(), Uuid::new_v4());
        let text = Key::random()?.to_text();
        self.keys.set(&name, text.clone()).await?;
        let read = self.keys.get(&name).await;
        self.keys.delete(&name).await?;
        match read? {
            Some(read) if *read == *text.as_bytes() => Ok(()),
            _ => Err(StoreError::NoKeyStore("it does not return what it takes; restart it".to_owned())),
        }
    }
}

/// Returns the folder for files of this person, if the operating system names one.
pub fn default_folder() -> Option<PathBuf> {
    ProjectDirs::from("", "", "mcp-entra").map(|folders| folders.data_local_dir().to_owned())
}

/// Runs file I/O on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    spawn_blocking(work).await.unwrap_or(Err(StoreError::Defect("work on a file broke off")))
}
