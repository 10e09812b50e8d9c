//! Failures of the store. Each text ends with the next step.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The secure store of the operating system cannot be used. The text says why, and how to mend it.
    #[error(
        "the secure store of the operating system cannot be used: {0}, or start with `--token-store file`, which keeps \
         tokens in a file without encryption"
    )]
    NoKeyStore(String),
    /// The tokens are deleted, but their key may stay. The text says why, and how to mend it.
    #[error(
        "the tokens are deleted, but their key may stay in the secure store of the operating system: {0}, and run \
         `--sign-out` again; the key opens nothing by itself"
    )]
    KeyStays(String),
    /// A file is there that cannot be opened. It is left alone.
    #[error("the file of tokens {} cannot be opened: {why}", path.display())]
    NotOpenable {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: NotOpenable,
    },
    /// A file or folder is not this person's alone.
    #[error("{} is not safe for tokens: {why}", path.display())]
    Insecure {
        /// The file or folder.
        path: PathBuf,
        /// The reason, and how to mend it.
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
    #[error("another process of this program works on the tokens; end the MCP clients that run it, and try again")]
    Busy,
    /// The operating system names no folder for this person's files.
    #[error("there is no home folder to keep tokens in; set HOME, or start with `--token-store memory`")]
    NoFolder,
    /// A step failed that does not depend on the machine.
    #[error("the tokens cannot be kept: {0}; try again, and report it as a defect if it stays")]
    Defect(&'static str),
}

impl StoreError {
    /// A failure of a call on a file.
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// A file that is not this person's alone.
    pub(super) fn insecure(path: &Path, why: impl Into<String>) -> Self {
        Self::Insecure { path: path.to_owned(), why: why.into() }
    }
}

/// A reason why a file of tokens cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpenable {
    /// Something else, or a part of a file.
    #[error("it is damaged, or another program wrote it; `--sign-in` replaces it, `--sign-out` deletes it")]
    Damaged,
    /// A format that a later version of this program writes.
    #[error("a newer version of this program wrote it; update this program")]
    Newer,
    /// The tokens of another owner.
    #[error(
        "it holds tokens for another tenant, client, Entra or Graph; `--sign-in` replaces it, `--sign-out` deletes it"
    )]
    OtherOwner,
    /// The secure store of the operating system has no key for it.
    #[error(
        "the secure store of the operating system has no key for it; `--sign-in` replaces the file, `--sign-out` \
         deletes it"
    )]
    NoKey,
    /// The key does not fit.
    #[error(
        "the key in the secure store of the operating system does not fit: the file is damaged, or comes from another \
         machine or sign-in; `--sign-in` replaces it, `--sign-out` deletes it"
    )]
    WrongKey,
}
