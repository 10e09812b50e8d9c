//! Privacy of files on Windows: the access list of the person's profile.

use std::fs::{Metadata, OpenOptions, create_dir_all};
use std::io;
use std::path::Path;

use super::error::StoreError;

/// Options for files of the profile.
pub(super) fn options() -> OpenOptions {
    OpenOptions::new()
}

/// Returns false: links are followed, because only administrators and developers may create them.
pub(super) fn is_symbolic_link(_: &io::Error) -> bool {
    false
}

/// Refuses anything but a file.
pub(super) fn check_file(path: &Path, file: &Metadata) -> Result<(), StoreError> {
    if file.is_file() { Ok(()) } else { Err(StoreError::insecure(path, "it is not a plain file; delete it")) }
}

/// Creates the folder.
pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    create_dir_all(path).map_err(|source| StoreError::io(path, source))
}

/// Does nothing: the file system's journal keeps a rename.
pub(super) fn sync_folder(_: &Path) {}
