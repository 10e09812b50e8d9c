//! Tests of a server that offers another MCP server's tools: public ones, unmodified, and one that misbehaves.

mod attacks;
mod claims;
mod complaints;
mod everything;
mod faces;
mod identity;
mod lists;
mod policy;
mod public;
mod puppet;
mod revisions;
mod sessions;
mod stage;
mod subscriptions;
mod translation;
mod withheld;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mcp_entra_policy::{
    BackendConfiguration, BackendIdentity, BackendSessions, BackendTransport, HttpBackend, Pattern,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use stock_backends::Launch;
use tempfile::TempDir;

use crate::harness::{Setup, Site, eventually, grant_to_readers};
use crate::tenant::ALICE;

/// The shim with a backend's command. Dropping this ends the shim and all processes that it has started.
pub(super) struct Shim {
    child: Child,
    folder: TempDir,
}

impl Shim {
    pub(super) async fn start(launch: &Launch) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Cargo only sets the paths of programs of this package. The shim is in the same folder.
        let program = Path::new(env!("CARGO_BIN_EXE_mcp-entra-server")).with_file_name("mcp-entra-shim");
        let mut command = Command::new(program);
        command.args(["serve", "--max-processes", "16", "--socket"]).arg(folder.path().join("s")).arg("--");
        command.args(launch.words()).envs(launch.env.iter().cloned()).stdin(Stdio::null());
        if std::env::var_os("SHOW_BACKEND").is_none() {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let shim = Self { child: command.spawn().unwrap(), folder };
        eventually("the shim listens", async || shim.socket().exists().then_some(())).await;
        shim
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        _ = self.child.wait();
    }
}

/// Returns the configuration of a backend over stdio.
pub(super) fn over_stdio() -> BackendConfiguration {
    BackendConfiguration {
        transport: BackendTransport::Stdio {},
        identity: BackendIdentity::None,
        sessions: BackendSessions::PerPrincipal,
        pin: None,
    }
}

/// Returns the configuration of a backend over HTTP.
pub(super) fn over_http(port: u16, path: &str) -> BackendConfiguration {
    let http = HttpBackend { port, path: path.to_owned() };
    BackendConfiguration { transport: BackendTransport::StreamableHttp(http), ..over_stdio() }
}

/// Returns a setup with this backend. Its policy grants the tools of these names, and all prompts and resources.
pub(super) fn setup(backend: BackendConfiguration, socket: Option<PathBuf>, tools: &[&str]) -> Setup {
    let mut setup = Setup::new();
    setup.configuration.graph.tools = vec![];
    setup.configuration.backend = Some(backend);
    setup.backend_socket = socket;
    let mut grant = grant_to_readers(tools);
    grant.allow.prompts = vec![Pattern("*".into())];
    grant.allow.resources = vec![Pattern("*".into())];
    setup.policy.grants = vec![grant];
    setup
}

/// Returns the result of a call by alice.
pub(super) async fn call(site: &Site, is_modern: bool, tool: &str, arguments: Value) -> Value {
    ask(site, is_modern, "tools/call", json!({ "name": tool, "arguments": arguments })).await
}

/// Returns the result of a request by alice.
pub(super) async fn ask(site: &Site, is_modern: bool, method: &str, params: Value) -> Value {
    let token = site.setup.tenant.token(ALICE);
    let answer = site.answer_in(is_modern, &token, method, params).await;
    assert!(answer["result"].is_object(), "{method}: {answer}");
    answer["result"].clone()
}
