//! The server as a process.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use super::tenant::BenchTenant;
use crate::process;
use crate::until::until;

/// Time for an answer of the admin port.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A running server; it ends with this value.
pub(super) struct Program {
    child: Child,
    /// The URL of the MCP endpoint.
    pub(super) url: String,
}

impl Program {
    /// Starts a server of the tenant, and waits until it is ready.
    pub(super) async fn start(program: &Path, tenant: &BenchTenant) -> anyhow::Result<Self> {
        let (address, admin) = free_addresses()?;
        let mut command = Command::new(program);
        command.args(["serve".to_owned(), format!("--listen={address}"), format!("--admin-listen={admin}")]);
        for (option, file) in [("--config", "config.yaml"), ("--policy", "policy.json"), ("--trust-bundle", "ca.pem")] {
            command.arg(option).arg(tenant.file(file));
        }
        command.env_clear().env("AZURE_FEDERATED_TOKEN_FILE", tenant.file("token")).env("RUST_LOG", "warn");
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        until("the server is ready", async || {
            if let Some(status) = child.try_wait()? {
                bail!("{} ended: {status}", program.display());
            }
            let answer = client.get(format!("http://{admin}/readyz")).send().await;
            Ok(answer.is_ok_and(|answer| answer.status().is_success()))
        })
        .await?;
        Ok(Self { child, url: format!("http://{address}/mcp") })
    }

    /// The processor time that it has taken since its start.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        process::cpu(self.child.id().context("the server has ended")?)
    }
}

/// Two addresses that are free now. Should another process be faster, the program says so and ends.
fn free_addresses() -> std::io::Result<(SocketAddr, SocketAddr)> {
    let [first, second] = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok((first.local_addr()?, second.local_addr()?))
}
