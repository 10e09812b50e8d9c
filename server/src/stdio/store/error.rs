//! Failures of the store. Each text ends with the next step.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The secure store of the operating system is not usable. The text has the reason and the remedy.
    #[error(
        "the secure store of the operating system cannot be used: {0}, or start with `--token-store file`, which keeps \
         tokens in a file without encryption"
    )]
    NoKeyStore(String),
    /// The tokens are deleted, but their key may remain. The text has the reason and the remedy.
    #[error(
        "the tokens are deleted, but their key may remain in the secure store of the operating system: {0}, and run \
         `--sign-out` again; the key opens nothing by itself"
    )]
    KeyStays(String),
    /// The token file cannot be opened. It stays unchanged.
    #[error("the file of tokens {} cannot be opened: {why}", path.display())]
    NotOpenable {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: NotOpenable,
    },
    /// A file or folder is accessible to other users.
    #[error("{} is not safe for tokens: {why}", path.display())]
    Insecure {
        /// The file or folder.
        path: PathBuf,
        /// The reason and the remedy.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}; check the permissions and the free space of its folder", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// Another process of this person holds the lock for too long.
    #[error("another process of this program uses the tokens; stop the MCP clients that run it, and try again")]
    Busy,
    /// The operating system names no home folder.
    #[error("there is no home folder for tokens; set HOME, or start with `--token-store memory`")]
    NoFolder,
    /// A step failed for a reason inside the program.
    #[error("cannot store the tokens: {0}; try again, and report it as a defect if it persists")]
    Defect(&'static str),
}

impl StoreError {
    /// Returns a failure of a file operation.
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Returns the error for a file that other users can access.
    pub(super) fn insecure(path: &Path, why: impl Into<String>) -> Self {
        Self::Insecure { path: path.to_owned(), why: why.into() }
    }
}

/// The reason why a token file cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpenable {
    /// The content is damaged or incomplete.
    #[error("it is damaged, or another program wrote it; `--sign-in` replaces it, `--sign-out` deletes it")]
    Damaged,
    /// A later version of this program wrote it.
    #[error("a newer version of this program wrote it; update this program")]
    Newer,
    /// The tokens belong to another owner.
    #[error(
        "it holds tokens for another tenant, client, Entra or Graph; `--sign-in` replaces it, `--sign-out` deletes it"
    )]
    OtherOwner,
    /// The secure store has no key for it.
    #[error(
        "the secure store of the operating system has no key for it; `--sign-in` replaces the file, `--sign-out` \
         deletes it"
    )]
    NoKey,
    /// The key does not match.
    #[error(
        "the key in the secure store of the operating system does not match: the file is damaged, or comes from another \
         machine or sign-in; `--sign-in` replaces it, `--sign-out` deletes it"
    )]
    WrongKey,
}
