//! The shim: runs inside the container of an MCP server that speaks over standard input and output, and makes it reachable
//! over a Unix socket. A connection is a process of its own, whose bytes pass unchanged. The shim knows nothing of MCP, has
//! no configuration and needs no rights.
//!
//! Each connection has a supervisor: the same program, started again. A supervisor adopts the orphans of the process that it
//! starts (`PR_SET_CHILD_SUBREAPER`), so every descendant is attributed to its connection, even one that left its session,
//! and ends with it. If a supervisor itself is killed, the shim adopts what it started, and kills that.
//!
//! All processes of a container have one user, so a hostile one can disturb those of other connections, or ask one of them to
//! start something that then outlives its own connection. The kernel kills them all when the shim, the container's first
//! process, ends. Orphans of what `kubectl exec` starts look like those of a killed supervisor, and are killed, too.

pub mod arguments;
mod children;
mod delivery;
pub mod install;
mod lines;
pub mod log;
pub mod serve;
mod signals;
mod socket;
pub mod supervise;
