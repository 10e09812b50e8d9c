//! The operator: reconciles `McpServer`s into running MCP servers, and `McpRoleMapping`s into the policy they enforce.
//!
//! | Folder | Holds |
//! |---|---|
//! | [`wiring`] | the start: watches, controllers, leader election, endpoints |
//! | [`commands`] | commands that end by themselves: `check`, `render`, `preview` |
//! | [`mapping`] | the status of role mappings; what they mean is in [`policy`] |
//! | [`orphans`] | what deletions left behind |
//! | [`mcpserver`] | one reconcile of an McpServer |
//! | [`ownership`] | who holds a host, a path, a client id |
//! | [`fleet`] | turns of upgrades |
//! | [`watch`] | what the API server showed |
//! | [`policy`] | the mappings of a server, selected and compiled |
//! | [`conditions`] | reasons, messages, events, status patches, and what ails pods |
//! | [`runtime`] | client, leader election, limits of passes, metrics, errors |
//! | [`objects`] | label names, child kinds, owners, views, drift |
//!
//! Imports run from the top of this table to its end. With the memory of all passes lost, a pass reads more and decides the
//! same.

mod commands;
mod conditions;
mod fleet;
mod mapping;
mod mcpserver;
mod objects;
mod orphans;
mod ownership;
mod policy;
mod runtime;
mod watch;
mod wiring;

pub use commands::asked_backend::AskError;
pub use commands::check::{CheckError, CheckOptions, check};
pub use commands::manifests::ManifestError;
pub use commands::pin::{PinError, PinOptions, pin};
pub use commands::preview::{PreviewError, PreviewOptions, preview};
pub use commands::render::{Arguments as RenderArguments, RenderError, render};
pub use runtime::leader::LeaseLost;
pub use runtime::options::{Options, PodMonitors};
pub use runtime::permissions::Blind;
pub use wiring::endpoints::listen;
pub use wiring::run::{RunError, run};
pub use wiring::startup_check::NoHostAllowed;

/// The field manager of every write, and the value of the `app.kubernetes.io/managed-by` label.
pub const MANAGER: &str = "mcp-entra-operator";
