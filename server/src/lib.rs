//! The companion server: authenticates every request with Microsoft Entra ID, authorises it by the compiled policy,
//! then answers it with built-in tools that reach Microsoft Graph as the signed-in user.
//!
//! | Room | Question |
//! |---|---|
//! | [`token`] | who is calling? |
//! | [`policy`], [`groups`] | may they? |
//! | [`http`] | what is asked, and in which order is it judged? |
//! | [`graph_tools`] | what is answered? |
//! | [`entra`], [`graph`] | how are Entra's token endpoint and Microsoft Graph reached? |
//! | [`audit`], [`telemetry`], [`admin`] | what happened, and how does the server do? |
//! | [`serve`], [`check`], [`inputs`], [`environment`], [`open_files`] | starting, stopping, diagnosing |
//!
//! Nothing here knows Kubernetes: what the server needs stands in files that somebody mounts.

pub mod admin;
pub mod audit;
pub mod check;
pub mod entra;
pub mod environment;
pub mod graph;
pub mod graph_tools;
pub mod groups;
pub mod http;
pub mod http_client;
pub mod inputs;
pub mod offer;
pub mod open_files;
pub mod policy;
pub mod serve;
pub mod strict_json;
pub mod telemetry;
pub mod token;
mod www_authenticate;
