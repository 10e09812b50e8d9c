//! Files of the store: read with a bound, written as a whole or not at all, their owner's alone.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;
use zeroize::Zeroizing;

use super::error::{NotOpenable, StoreError};
use super::{LockPurpose, StoreKind, private};

/// Most bytes of a file. Caches of real accounts reach 6.5 kB.
const LARGEST: usize = 256 * 1024;

/// Entries of the folder that are looked at for unfinished files.
const MOST_ENTRIES: usize = 10_000;

/// The file of tokens with the files beside it.
#[derive(Clone)]
pub(super) struct Files {
    folder: PathBuf,
    /// The beginning of each name.
    stem: String,
    tokens: PathBuf,
}

impl Files {
    /// Files whose names begin with this stem, for a store of this kind.
    pub(super) fn new(folder: PathBuf, stem: String, kind: StoreKind) -> Self {
        let tokens = folder.join(format!("{stem}.{}", extension(kind)));
        Self { folder, stem, tokens }
    }

    /// The file of tokens.
    pub(super) fn tokens(&self) -> &Path {
        &self.tokens
    }

    /// Returns the content of the file of tokens, if there is one.
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
        // All room at once: a buffer that grew would leave copies of tokens in memory.
        let mut content = Zeroizing::new(Vec::with_capacity(LARGEST + 1));
        file.take(LARGEST as u64 + 1).read_to_end(&mut content).map_err(failed)?;
        if content.len() > LARGEST {
            return Err(StoreError::NotOpenable { path: path.clone(), why: NotOpenable::Damaged });
        }
        Ok(Some(content))
    }

    /// Puts a new file of tokens in place of the old, and deletes what killed processes have left. A reader sees the
    /// old file or the new; a failure leaves the old.
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

    /// Deletes the files of tokens of every kind, and what killed processes have left. Says which there were.
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

    /// Opens the file of a lock. It stays forever, since a lock on a deleted file would keep nobody out.
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

    /// Writes a file under a name of its own.
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

/// Files of tokens that there were.
pub(super) struct Deleted {
    pub(super) encrypted: bool,
    pub(super) plain: bool,
}

fn extension(kind: StoreKind) -> &'static str {
    if kind == StoreKind::Os { "sealed" } else { "json" }
}

/// A file that is not in its place yet. It is deleted at the end, unless it was renamed before.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // The next writer deletes what stays.
        let _ = fs::remove_file(&self.0);
    }
}

/// Says whether there was a file.
fn delete_file(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io(path, error)),
    }
}
