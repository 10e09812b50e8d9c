//! Pages of the documentation, their blocks, links and commands, and the tables that tests generate into them.
//!
//! Every function panics if a page cannot be read: only tests call them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "only tests call it")]

mod generated;
mod manifests;
mod page;

pub use generated::{flags, hold, hold_section, metrics};
pub use manifests::{MCP_SERVER_FRAGMENT, manifests};
pub use page::{Block, Link, Page, pages, repository};
