//! Privacy of files on Unix: modes, owners and symbolic links.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;
use nix::unistd::geteuid;

use super::error::StoreError;

/// Options for opening a file: a new file is private, a symbolic link is refused, and a named pipe does not block.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// True if [`options`] failed because of a symbolic link.
pub(super) fn is_symbolic_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

/// Refuses a file that another user owns, or may read or write.
pub(super) fn check_file(path: &Path, file: &Metadata) -> Result<(), StoreError> {
    if !file.is_file() {
        return Err(StoreError::insecure(path, "it is not a plain file; delete it"));
    }
    check(path, file, 0o600)
}

/// Creates a private folder. Refuses one in which others may replace files.
pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::io(path, source);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    check(path, &metadata(path).map_err(failed)?, 0o755)
}

fn check(path: &Path, metadata: &Metadata, most: u32) -> Result<(), StoreError> {
    let refused = refusal(metadata.uid(), metadata.mode(), geteuid().as_raw(), most);
    refused.map_or(Ok(()), |why| Err(StoreError::insecure(path, why)))
}

/// Returns the reason why an object with this owner and mode is not safe for a person. `most` are the permissions
/// that others may have.
fn refusal(owner: u32, mode: u32, person: u32, most: u32) -> Option<String> {
    if owner != person {
        return Some("another user owns it; run this program as that user, or delete it".to_owned());
    }
    let others = mode & 0o077 & !most;
    (others != 0).then(|| format!("others may use it (mode {:o}); run `chmod go=` on it", mode & 0o777))
}

/// Makes a rename survive a power failure. Otherwise the old file may return, which is complete, too.
pub(super) fn sync_folder(path: &Path) {
    let _ = File::open(path).and_then(|folder| folder.sync_all());
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn only_a_file_without_access_for_others_is_safe() {
        const FILE: u32 = 0o600;
        const FOLDER: u32 = 0o755;
        let cases = [
            (1000, 0o100_600, FILE, true),
            (1000, 0o100_400, FILE, true),
            (1000, 0o100_640, FILE, false),
            (1000, 0o100_604, FILE, false),
            (1000, 0o100_620, FILE, false),
            (1001, 0o100_600, FILE, false),
            (0, 0o100_600, FILE, false),
            (1000, 0o040_700, FOLDER, true),
            (1000, 0o040_755, FOLDER, true),
            (1000, 0o040_775, FOLDER, false),
            (1000, 0o041_777, FOLDER, false),
            (1001, 0o040_700, FOLDER, false),
        ];
        for (owner, mode, most, is_safe) in cases {
            assert_eq!(refusal(owner, mode, 1000, most).is_none(), is_safe, "owner {owner}, mode {mode:o}");
        }
    }
}
