//! Shim of a backend: runs inside the container of an MCP server that uses standard input and output, and makes it
//! reachable over a Unix socket. Each connection has its own process, whose bytes pass unchanged. The shim does not
//! know MCP, has no configuration and needs no rights.
//!
//! Each connection has a supervisor: the same program, started again. A supervisor adopts the orphans of the process
//! that it starts (`PR_SET_CHILD_SUBREAPER`). Every descendant is therefore attributed to its connection, even one that
//! left its session, and ends with it. If a supervisor itself is killed, the shim adopts its children, and kills them.
//!
//! In a container of the companion's image, the program also holds the companion's ports ([`hold`]).
//!
//! All processes of a container have one user. A hostile one can disturb those of other connections, or make one of
//! them start a process that outlives its own connection. The kernel kills them all when the shim, the container's
//! first process, ends. Orphans of `kubectl exec` look like those of a killed supervisor, and are killed, too.

pub mod arguments;
mod children;
mod delivery;
pub mod hold;
pub mod install;
mod lines;
pub mod log;
pub mod serve;
mod signals;
mod socket;
pub mod supervise;
