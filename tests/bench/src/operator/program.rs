//! The operator as a process, and what can be seen of it from outside.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use testbed::supervisor::{Child, Command};

use super::cluster::Cluster;
use super::until;

/// Time to end for a program that is told to.
const GRACE: Duration = Duration::from_secs(40);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Linux has had no other since 2.6, whatever the kernel's own.
const TICKS_A_SECOND: u64 = 100;

/// A running operator.
pub(super) struct Program {
    child: Child,
    url: String,
    client: reqwest::Client,
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Bytes resident now.
    pub(super) resident: u64,
    /// Of them, those that are not pages of the program's file, which the kernel can drop at any time.
    pub(super) anonymous: u64,
    /// The most bytes that have been resident.
    pub(super) peak: u64,
}

impl Program {
    pub(super) async fn start(program: &Path, cluster: &Cluster, proxy_url: &str) -> anyhow::Result<Self> {
        // Free when it is chosen; should another process be faster, the program says so and ends.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let arguments = [
            "run".to_owned(),
            format!("--listen={address}"),
            format!("--pod-proxy-url={proxy_url}"),
            "--server-image=registry.example/mcp-entra-server:bench".to_owned(),
            "--allowed-host=*".to_owned(),
        ];
        let command = Command::new(program, cluster.supervisor.folder().join("operator.log"))
            .args(arguments)
            .env("KUBECONFIG", cluster.kubeconfig.display().to_string());
        let child = cluster.supervisor.spawn(command).await?;
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
        Ok(Self { child, url: format!("http://{address}"), client })
    }

    /// Waits until its watches have seen everything.
    pub(super) async fn until_ready(&self) -> anyhow::Result<()> {
        until("the operator is ready", async || {
            if let Some(status) = self.child.status() {
                bail!("the operator ended ({status:?})");
            }
            let answer = self.client.get(format!("{}/readyz", self.url)).send().await;
            Ok(answer.is_ok_and(|answer| answer.status().is_success()))
        })
        .await
    }

    /// How many passes over McpServers have ended since its start.
    pub(super) async fn passes(&self) -> anyhow::Result<u64> {
        let metrics = self.client.get(format!("{}/metrics", self.url)).send().await?.text().await?;
        let counts = metrics.lines().filter_map(|line| {
            let labels = line.strip_prefix("mcp_entra_operator_reconciles_total{")?;
            labels.contains("kind=\"McpServer\"").then(|| labels.rsplit(' ').next()?.parse::<u64>().ok())?
        });
        Ok(counts.sum())
    }

    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        let path = format!("/proc/{}/status", self.child.pid());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let bytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
        };
        let memory =
            || Some(Memory { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")?, peak: bytes("VmHWM:")? });
        memory().with_context(|| format!("{path} tells no memory"))
    }

    /// The processor time that it has taken since its start.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.child.pid());
        let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        // The name of the program, in parentheses, may hold anything.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        // utime and stime, the 14th and 15th of all.
        let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>().with_context(|| path)?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
    }

    pub(super) async fn stop(&self) {
        self.child.terminate(GRACE).await;
    }
}
