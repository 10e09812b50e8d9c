//! Local mode: the server as a child process of an MCP client, over standard input and output, for the person who runs it.
//!
//! The person signs in once, as a user of a public client: no secret, no cluster. `settings` says for whom and for what,
//! bounded by the `machine_policy` of an administrator. `store` keeps the tokens between starts. `client_config` prints the
//! block that an MCP client takes.

pub mod client_config;
pub mod machine_policy;
pub mod settings;
pub mod store;
