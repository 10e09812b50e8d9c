//! The companion server. It authenticates every request with Microsoft Entra ID and authorises it by the compiled
//! policy. Then it answers with built-in tools that call Microsoft Graph as the signed-in user.
//!
//! | Folder | Holds |
//! |---|---|
//! | [`authorize`] | decisions about messages: pure, without HTTP |
//! | [`http`] | the stages of a request, and the listener under them |
//! | [`token`] | verified owners of bearer tokens |
//! | [`policy`], [`groups`] | the policy in force, and groups that tokens do not list |
//! | [`protocol`] | MCP itself, for any offer |
//! | [`offer`] | the tools that are offered, and their answers |
//! | [`backend`] | sessions with a backend, over standard input and output or HTTP |
//! | [`entra`], [`graph`], [`http_client`] | the way to Entra's token endpoint and to Microsoft Graph |
//! | [`backend_identity`] | the caller's identity, as it is sent to a backend |
//! | [`oauth`] | the authorization server for clients that cannot sign in to Entra |
//! | [`stdio`] | local mode: a child process of one person's MCP client |
//! | [`audit`], [`telemetry`], [`admin`] | the audit log, logs and metrics, and the admin port |
//! | [`serve`], [`check`], [`inputs`], `report`, [`listeners`], [`environment`], [`open_files`], [`signals`], [`raw_json`], [`strict_json`] | start and stop, diagnostics, and input files |
//! | `aes_gcm`, [`es256`] | authenticated encryption, signed JWTs |
//!
//! Nothing here depends on Kubernetes: all input comes from mounted files.

pub mod admin;
mod aes_gcm;
pub mod audit;
pub mod authorize;
pub mod backend;
pub mod backend_identity;
pub mod check;
pub mod entra;
pub mod environment;
pub mod es256;
pub mod graph;
pub mod groups;
pub mod http;
pub mod http_client;
pub mod inputs;
pub mod listeners;
pub mod oauth;
pub mod offer;
pub mod open_files;
pub mod policy;
pub mod protocol;
pub mod raw_json;
mod report;
pub mod serve;
pub mod signals;
pub mod stdio;
pub mod strict_json;
pub mod telemetry;
pub mod token;
mod www_authenticate;
