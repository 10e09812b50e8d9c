//! MCP servers that run behind the companion in tests: public ones, unmodified and pinned, and one that misbehaves by
//! request.
//!
//! The lists in `node` and `python` pin the public servers with hashes. Servers of the Python SDK 1 have a separate
//! list, since others need the SDK 2. `requirements.in` names the servers, and uv generates its list: `uv pip compile
//! --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate`. Installations are
//! kept in `~/.cache/mcp-entra/backends`.
//!
//! # Revisions of the public servers
//!
//! Each was sent `server/discover` of 2026-07-28 as the first message. "Handshake" stands for 2024-11-05 to 2025-11-25.
//!
//! | Server | Speaks | Answers `server/discover` |
//! |---|---|---|
//! | everything, filesystem, memory, sequential-thinking (stdio) | handshake | -32601 `Method not found` |
//! | sqlite, calculator (stdio) | handshake | -32602 `Invalid request parameters`, `data: ""`, as for any unknown method |
//! | time, git, greeter (stdio) | both | a result with `supportedVersions: ["2026-07-28"]` |
//! | everything (HTTP) | handshake | 400, -32000 `Bad Request: Server not initialized`, `id: null` |
//! | greeter (HTTP) | both | 200, a result in JSON |
//!
//! - All answer `initialize` of 2026-07-28 with 2025-11-25.
//! - The first message fixes the revision of an stdio connection of time, git and greeter. After a discover, even a
//!   refused one, `initialize` is -32022. After `initialize`, a message with the envelope of 2026-07-28 is -32600.
//! - A discover without `_meta` is -32601 there, and fixes nothing.
//! - greeter over HTTP: a discover without the MCP headers is 400, -32600 `Bad Request: Missing session ID`, `id:
//!   null`. An unknown version is 400, -32022 with `data.supported`.
//! - An unknown or deleted session is 404 at greeter (-32600 `Session not found`). It is 400 at everything (-32000 `Bad
//!   Request: No valid session ID provided`, without an `id`).
//! - everything answers by events. From 2025-11-25 on, the first event has an id and no data. greeter answers messages
//!   of 2026-07-28 in JSON, others by events.
//! - Servers of the TypeScript SDK list tools before they are initialized.
//! - All end with status 0 when stdin is closed.

mod launch;
mod public;
mod running;
pub mod scripted;

pub use launch::Launch;
pub use public::Public;
pub use running::HttpBackend;
