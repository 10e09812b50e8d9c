//! A server as one or several processes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

use super::cores::spawn_on;
use super::servers::Server;
use super::shim::Shim;
use super::tenant::BenchTenant;
use crate::process::{self, Memory};
use crate::until::until;

/// Timeout of an answer during the start of a server.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A running server; it ends with this value.
pub(super) struct Program {
    child: Child,
    /// The address of the MCP endpoint.
    pub(super) address: SocketAddr,
    /// Shim of its backend. The shim's processes count as its own.
    shim: Option<Shim>,
}

impl Program {
    /// Starts a server of the tenant on these cores, with one worker for each, and waits until it lists its tools.
    pub(super) async fn start(server: &Server, tenant: &BenchTenant, on: &[usize]) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = server.command(address, on.len(), tenant);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = spawn_on(on, command).with_context(|| server.name.clone())?;
        let mut program = Self { child, address, shim: None };
        let token = tenant.tokens(1)?.concat();
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        until("the server lists its tools", async || {
            if let Some(status) = program.child.try_wait()? {
                bail!("{} ended: {status}", server.name);
            }
            Ok(tools(&client, address, &token).await.is_some())
        })
        .await?;
        Ok(program)
    }

    /// Counts the processes of this shim as its own, and ends the shim with them.
    pub(super) fn adopt(&mut self, shim: Option<Shim>) {
        self.shim = shim;
    }

    /// The definitions of its tools.
    pub(super) async fn tools(&self, tenant: &BenchTenant) -> anyhow::Result<Vec<serde_json::Value>> {
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        tools(&client, self.address, &tenant.tokens(1)?.concat()).await.context("the server lists no tools")
    }

    /// Returns the processor time of its processes since their start.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        self.processes()?.into_iter().map(process::cpu).sum()
    }

    /// Returns the total memory of its processes.
    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        let mut sum = Memory::default();
        for pid in self.processes()? {
            let memory = process::memory(pid)?;
            sum.resident += memory.resident;
            sum.anonymous += memory.anonymous;
            sum.peak += memory.peak;
        }
        Ok(sum)
    }

    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let mut processes = self.family()?;
        processes.extend(self.shim.as_ref().map(Shim::processes).transpose()?.into_iter().flatten());
        Ok(processes)
    }

    fn family(&self) -> anyhow::Result<Vec<u32>> {
        process::family(self.child.id().context("the server has ended")?)
    }
}

impl Drop for Program {
    /// Ends its children, too, since they may not notice its end.
    fn drop(&mut self) {
        let pids = self.family().unwrap_or_default();
        for pid in pids.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

async fn tools(client: &reqwest::Client, address: SocketAddr, token: &str) -> Option<Vec<serde_json::Value>> {
    let request = client.post(format!("http://{address}/mcp")).bearer_auth(token);
    let request = request.header("content-type", "application/json").header("mcp-protocol-version", "2025-11-25");
    let request = request.header("accept", "application/json, text/event-stream");
    let answer = request.body(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).send().await.ok()?;
    let answer: serde_json::Value = answer.json().await.ok()?;
    answer.pointer("/result/tools")?.as_array().cloned()
}

/// Returns an address that is free now. If another process takes it, the program reports that and ends.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
