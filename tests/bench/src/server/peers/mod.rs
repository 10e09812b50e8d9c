//! Peers of the comparison: two in Rust, which are this same program, started again, and two scripts.

mod bare;
mod fixed_caller;
mod listen;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use bare::run as run_bare;
pub use fixed_caller::run as run_fixed_caller;

/// Settings of all peers: the content of `peer.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeerSetting {
    /// Definitions of the tools, as the server under test lists them.
    pub(super) tools: Vec<Value>,
    /// Address of the profile in Graph.
    pub(super) graph: String,
    /// Token of a user. Peers that do not exchange tokens send it to Graph, which ignores it.
    pub(super) user_token: String,
    /// `iss` of users' tokens.
    pub(super) issuer: String,
    /// Address of the tenant's keys.
    pub(super) jwks: String,
    /// `aud` of users' tokens.
    pub(super) audience: String,
    /// Scope that users' tokens must have.
    pub(super) scope: String,
}

/// Arguments of a peer in Rust.
#[derive(Args, Clone, Debug)]
pub struct PeerArguments {
    /// Port on the loopback interface.
    port: u16,
    /// Folder with `peer.json` and the files of the server under test.
    folder: PathBuf,
}

impl PeerSetting {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(folder.join("peer.json")).context("peer.json")?;
        serde_json::from_str(&text).context("peer.json")
    }

    fn tools(&self) -> anyhow::Result<Vec<rmcp::model::Tool>> {
        Ok(serde_json::from_value(Value::Array(self.tools.clone()))?)
    }
}
