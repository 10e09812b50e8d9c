//! Files of the store. Reads are bounded, writes are atomic, and only the owner has access.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;
use zeroize::Zeroizing;

use super::error::{NotOpenable, StoreError};
use super::{LockPurpose, StoreKind, private};

/// Largest file, in bytes. Caches of real accounts reach 6.5 kB.
const LARGEST: usize = 256 * 1024;

/// Most entries of the folder that are searched for unfinished files.
const MOST_ENTRIES: usize = 10_000;

/// The token file and its related files.
#[derive(Clone)]
pub(super) struct Files {
    folder: PathBuf,
    /// The prefix of each name.
    stem: String,
    tokens: PathBuf,
}

impl Files {
    /// Returns the files with this prefix, for a store of this kind.
    pub(super) fn new(folder: PathBuf, stem: String, kind: StoreKind) -> Self {
        let tokens = folder.join(format!("{stem}.{}", extension(kind)));
        Self { folder, stem, tokens }
    }

    /// Returns the path of the token file.
    pub(super) fn tokens(&self) -> &Path {
        &self.tokens
    }

    /// Returns the content of the token file, if it exists.
    pub(super) fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let path = &self.tokens;
        let failed = |source| StoreError::io(path, source);
        let file = match private::options().read(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if private::is_symbolic_link(&error) => {
                let why = "it is a symbolic link; replace it with the file that it stands for, or delete it";
                return Err(StoreError::insecure(path, why));
            }
            Err(error) => return Err(failed(error)),
        };
        private::check_file(path, &file.metadata().map_err(failed)?)?;
        // Allocated at once: a growing buffer would leave copies of tokens in memory.
        let mut content = Zeroizing::new(Vec::with_capacity(LARGEST + 1));
        file.take(LARGEST as u64 + 1).read_to_end(&mut content).map_err(failed)?;
        if content.len() > LARGEST {
            return Err(StoreError::NotOpenable { path: path.clone(), why: NotOpenable::Damaged });
        }
        Ok(Some(content))
    }

    /// Replaces the token file, and deletes unfinished files of killed processes. A reader sees the old or the new
    /// file; a failure keeps the old one.
    pub(super) fn write(&self, content: &[u8]) -> Result<(), StoreError> {
        if content.len() > LARGEST {
            return Err(StoreError::Defect("they are larger than 256 KiB"));
        }
        private::create_folder(&self.folder)?;
        self.delete_unfinished()?;
        let unfinished = self.write_unfinished(content)?;
        fs::rename(&unfinished.0, &self.tokens).map_err(|source| StoreError::io(&self.tokens, source))?;
        private::sync_folder(&self.folder);
        Ok(())
    }

    /// Deletes the token files of every kind, and unfinished files of killed processes. Returns which ones existed.
    pub(super) fn delete(&self) -> Result<Deleted, StoreError> {
        let delete = |kind| delete_file(&self.folder.join(format!("{}.{}", self.stem, extension(kind))));
        let (encrypted, plain) = (delete(StoreKind::Os), delete(StoreKind::File));
        self.delete_unfinished()?;
        Ok(Deleted { encrypted: encrypted?, plain: plain? })
    }

    /// Writes a file and deletes it.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        private::create_folder(&self.folder)?;
        self.write_unfinished(b"probe").map(drop)
    }

    /// Opens the lock file. It is never deleted, because a lock on a deleted file would not exclude anybody.
    pub(super) fn open_lock(&self, purpose: LockPurpose) -> Result<(File, PathBuf), StoreError> {
        private::create_folder(&self.folder)?;
        let extension = match purpose {
            LockPurpose::Tokens => "lock",
            LockPurpose::SignIn => "sign-in.lock",
        };
        let path = self.folder.join(format!("{}.{extension}", self.stem));
        let file = private::options().read(true).write(true).create(true).truncate(false).open(&path);
        Ok((file.map_err(|source| StoreError::io(&path, source))?, path))
    }

    /// Writes a file with a unique name.
    fn write_unfinished(&self, content: &[u8]) -> Result<Unfinished, StoreError> {
        let path = self.folder.join(format!("{}.{}.tmp", self.stem, Uuid::new_v4()));
        let failed = |source| StoreError::io(&path, source);
        let mut file = private::options().write(true).create_new(true).open(&path).map_err(failed)?;
        let unfinished = Unfinished(path.clone());
        file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(unfinished)
    }

    fn delete_unfinished(&self) -> Result<(), StoreError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io(&self.folder, error)),
        };
        for entry in entries.take(MOST_ENTRIES) {
            let path = entry.map_err(|source| StoreError::io(&self.folder, source))?.path();
            if self.is_unfinished(&path) {
                delete_file(&path)?;
            }
        }
        Ok(())
    }

    fn is_unfinished(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(&self.stem));
        name.is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".tmp"))
    }
}

/// The token files that existed.
pub(super) struct Deleted {
    pub(super) encrypted: bool,
    pub(super) plain: bool,
}

fn extension(kind: StoreKind) -> &'static str {
    if kind == StoreKind::Os { "sealed" } else { "json" }
}

/// A temporary file. It is deleted on drop, unless it was renamed before.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // The next writer deletes leftovers.
        let _ = fs::remove_file(&self.0);
    }
}

/// Deletes a file. Returns true if it existed.
fn delete_file(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io(path, error)),
    }
}
