//! The limit of open files. Each connection uses one.

#[cfg(unix)]
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Enough for the connections of both ports and everything else.
#[cfg(unix)]
const ENOUGH: u64 = 16 * 1024;

/// Raises the limit of open files as far as this process may. Many container runtimes start with 1024, as many as the
/// connections of one port.
#[cfg(unix)]
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = soft.max(hard.min(ENOUGH));
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Does nothing: Windows has no such limit on connections.
#[cfg(not(unix))]
pub fn raise_limit() {}
