//! The operator as a process, and its visible state.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use testbed::supervisor::{Child, Command};

use super::cluster::Cluster;
use crate::process::{self, Memory};
use crate::until::until;

/// Time for the program to end after a signal.
const GRACE: Duration = Duration::from_secs(40);
const TIMEOUT: Duration = Duration::from_secs(5);

/// A running operator.
pub(super) struct Program {
    child: Child,
    url: String,
    client: reqwest::Client,
}

impl Program {
    pub(super) async fn start(program: &Path, cluster: &Cluster, proxy_url: &str) -> anyhow::Result<Self> {
        // It is free now. If another process takes it, the program reports that and ends.
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

    /// Waits until its watches are synced.
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

    /// Returns the number of finished reconciles of McpServers since its start.
    pub(super) async fn reconciles(&self) -> anyhow::Result<u64> {
        let metrics = self.client.get(format!("{}/metrics", self.url)).send().await?.text().await?;
        let counts = metrics.lines().filter_map(|line| {
            let labels = line.strip_prefix("mcp_entra_operator_reconciles_total{")?;
            labels.contains("kind=\"McpServer\"").then(|| labels.rsplit(' ').next()?.parse::<u64>().ok())?
        });
        Ok(counts.sum())
    }

    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        process::memory(self.child.pid())
    }

    /// Returns the processor time since its start.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        process::cpu(self.child.pid())
    }

    pub(super) async fn stop(&self) {
        self.child.terminate(GRACE).await;
    }
}
