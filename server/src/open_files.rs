//! The limit of open files, of which each connection is one.

#[cfg(unix)]
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than the connections of both ports and everything else need.
#[cfg(unix)]
const ENOUGH: u64 = 16 * 1024;

/// Raises the limit of open files as far as this process may: many container runtimes start with 1024, the number of
/// connections that one port alone takes.
#[cfg(unix)]
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = soft.max(hard.min(ENOUGH));
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Does nothing: Windows has no such limit on connections.
#[cfg(not(unix))]
pub fn raise_limit() {}
