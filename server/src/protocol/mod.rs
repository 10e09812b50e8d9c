//! MCP itself, for any offer: revisions, envelope, result types, cache hints and ids.
//!
//! The way in (HTTP, or the lines of a child process) authenticates a request, decides about it, and hands it over with an [`Exchange`]. Here it becomes a
//! [`Call`](crate::offer::Call), and the reply becomes a message again. `rmcp_adapter` is the one place that runs rmcp, over HTTP or over `lines`. Besides
//! it, [`authorize::Message`](crate::authorize::Message) reads the params of a request by the types of rmcp.

mod exchange;
mod lines;
mod rmcp_adapter;

pub use exchange::{Exchange, Granted, Need, Needs, Target};
pub use lines::{LetIn, NotTaken, Unanswered, Waiting, serve_lines};
pub use rmcp_adapter::{HttpService, service};
