//! Unix socket with the right mode: no process can connect to it before the mode is set.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::net::{UnixListener, UnixStream};

/// Mode of the socket. The companion's user may differ from the backend's, but both containers share a group.
const MODE: u32 = 0o660;

/// Listening socket. Its file is removed when this is dropped.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens, and replaces the socket of an earlier run.
    ///
    /// # Errors
    /// If the path has another file, the folder cannot be written, or the path is too long. The message has the next
    /// step.
    pub(crate) fn listen(path: &Path) -> anyhow::Result<Self> {
        let occupied = fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket());
        ensure!(!occupied, "{} is not a socket; choose another path for --socket", path.display());
        let listener = bind(path).with_context(|| next_step(path))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Waits for a connection.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(connection, _)| connection)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The emptyDir is removed with the pod anyway.
        let _ = fs::remove_file(&self.path);
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(MODE))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

fn next_step(path: &Path) -> String {
    format!(
        "cannot make the socket {}; its folder must be an emptyDir that is not mounted read-only, of a pod with an fsGroup, \
         and its path shorter than 104 bytes",
        path.display()
    )
}
