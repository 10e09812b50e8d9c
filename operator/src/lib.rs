//! The operator: reconciles `McpServer`s into running MCP servers, and `McpRoleMapping`s into the policies they enforce.
//!
//! | Folder | Content |
//! |---|---|
//! | [`wiring`] | startup: watches, controllers, leader election, endpoints |
//! | [`commands`] | one-shot commands: `check`, `render`, `preview`, `pin` |
//! | [`mapping`] | the status of role mappings; [`policy`] compiles them |
//! | [`orphans`] | pods and objects that outlive a deleted McpServer |
//! | [`mcpserver`] | one reconcile of an McpServer |
//! | [`ownership`] | claims on hosts, paths and client ids |
//! | [`fleet`] | turns of upgrades |
//! | [`watch`] | caches of the API server's objects |
//! | [`policy`] | selection and compilation of a server's mappings |
//! | [`conditions`] | reasons, messages, events, status patches, trouble of pods |
//! | [`runtime`] | client, leader election, limits of passes, metrics, errors |
//! | [`objects`] | label names, child kinds, owners, views, drift |
//!
//! A pass is one reconcile of one object. Imports run from the top of this table to its end. The memory that passes keep
//! saves reads only: without it, a pass reads more and decides the same.

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
