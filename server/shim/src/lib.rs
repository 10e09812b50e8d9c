//! The shim: runs inside the container of an MCP server that speaks over standard input and output, and makes it reachable
//! over a Unix socket. A connection is a process of its own, whose bytes pass unchanged. The shim knows nothing of MCP, has
//! no configuration and needs no rights.
//!
//! Each connection has a supervisor: the same program, started again. A supervisor adopts the orphans of the process that it
//! starts (`PR_SET_CHILD_SUBREAPER`), so every descendant is attributed to its connection, even one that left its session,
//! and ends with it. If a supervisor itself is killed, the shim adopts what it started, and kills that.
//!
//! Two things are out of reach. A process that another one's supervisor starts is that one's, whoever asked for it. And all
//! processes of a container have one user, so a hostile one can disturb those of other connections. Kubernetes kills the
//! container's processes when the shim, its first, ends.

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
