//! Benchmark of the operator: its phases in order.

mod cluster;
mod figures;
mod load;
mod node;
mod pods;
mod program;
mod requests;
mod servers;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use testbed::control_plane::Marker;
use testbed::supervisor::Supervisor;

pub use figures::Figures;

use cluster::Cluster;
use figures::Window;
use node::StubNode;
use program::Program;
use requests::Requests;
use servers::ReadyServers;

use crate::until::until;

/// Size of the measurement.
#[derive(Args, Clone, Debug, Default)]
pub struct Size {
    /// McpServers, each with its own McpRoleMapping
    #[arg(long, default_value_t = 1000)]
    pub servers: u32,
    /// Pods of each server.
    #[arg(long, default_value_t = 2)]
    pub replicas: u32,
    /// Namespaces of the servers
    #[arg(long, default_value_t = 20)]
    pub namespaces: u32,
    /// Servers with the same host, and the same number with a client id of another namespace, which are added for a
    /// second such window
    #[arg(long, default_value_t = 100)]
    pub rivals: u32,
    /// Length of the window in which nothing may be written.
    #[arg(long, default_value_t = 60)]
    pub steady_seconds: u64,
}

impl Size {
    fn pods(&self) -> usize {
        self.servers as usize * self.replicas as usize
    }
}

/// Time without writes after which the operator counts as settled.
const QUIET: Duration = Duration::from_secs(3);

/// Measures this operator program under the supervisor. `say` gets a line at the start of each phase.
///
/// # Errors
/// If a part does not start, or an awaited state is not reached.
pub async fn measure(
    size: &Size,
    program: &Path,
    supervisor: Supervisor,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Figures> {
    ensure!(size.namespaces > 0 && size.servers > 0 && size.replicas > 0, "at least one of each is measured");
    say("starting a control plane");
    let cluster = Cluster::start(supervisor).await?;
    let node = StubNode::start(&cluster.client()?).await?;
    let ready = ReadyServers::watch(&cluster.client()?);
    load::namespaces(&cluster.client()?, size).await?;
    let mut figures = Figures::of(size);

    say("starting the operator in an empty cluster");
    let mut operator = Program::start(program, &cluster, node.proxy_url()).await?;
    operator.until_ready().await?;
    quiet(&cluster).await?;
    figures.empty_memory = operator.memory()?;

    say(&format!("applying {} servers and as many mappings", size.servers));
    let (mark, begin) = (cluster.audit().mark()?, Instant::now());
    load::apply(&cluster.client()?, size).await?;
    figures.applied = begin.elapsed();
    until("every server is Ready", async || Ok(ready.count() == size.servers as usize)).await?;
    figures.all_ready = begin.elapsed();
    quiet(&cluster).await?;
    figures.creation = requests_since(&cluster, mark).await?;
    figures.creation_reconciles = operator.reconciles().await?;
    figures.full_memory = operator.memory()?;

    say(&format!("counting writes for {} s", size.steady_seconds));
    figures.steady = window(size, &cluster, &operator, &node).await?;
    figures.steady_memory = operator.memory()?;

    say("restarting the operator");
    operator.stop().await;
    node.pods().forget_polls();
    let (mark, begin) = (cluster.audit().mark()?, Instant::now());
    operator = Program::start(program, &cluster, node.proxy_url()).await?;
    operator.until_ready().await?;
    figures.restart_ready = begin.elapsed();
    until("every pod is polled again", async || Ok(node.pods().polled() == size.pods())).await?;
    figures.restart_all_asked = begin.elapsed();
    quiet(&cluster).await?;
    figures.restart = requests_since(&cluster, mark).await?;
    figures.restart_memory = operator.memory()?;

    say("applying a deny for every server");
    let (mark, begin) = (cluster.audit().mark()?, Instant::now());
    load::deny(&cluster.client()?).await?;
    let enforcing = || node.pods().enforcing(load::DENY);
    until("half of the pods enforce the deny", async || Ok(enforcing() * 2 >= size.pods())).await?;
    figures.half_deny = begin.elapsed();
    until("every pod enforces the deny", async || Ok(enforcing() == size.pods())).await?;
    figures.all_deny = begin.elapsed();
    quiet(&cluster).await?;
    figures.deny = requests_since(&cluster, mark).await?;
    figures.deny_memory = operator.memory()?;

    say(&format!("applying {} servers with one host, and as many with one client id", size.rivals));
    load::rivals(&cluster.client()?, size).await?;
    quiet(&cluster).await?;
    figures.rivals = window(size, &cluster, &operator, &node).await?;
    operator.stop().await;
    Ok(figures)
}

/// Measures a window in which nothing may be written.
async fn window(size: &Size, cluster: &Cluster, operator: &Program, node: &StubNode) -> anyhow::Result<Window> {
    let (mark, cpu, polls) = (cluster.audit().mark()?, operator.cpu()?, node.pods().polls());
    let reconciles = operator.reconciles().await?;
    tokio::time::sleep(Duration::from_secs(size.steady_seconds)).await;
    Ok(Window {
        requests: requests_since(cluster, mark).await?,
        cpu: operator.cpu()?.saturating_sub(cpu),
        polls: node.pods().polls() - polls,
        reconciles: operator.reconciles().await? - reconciles,
    })
}

async fn requests_since(cluster: &Cluster, mark: Marker) -> anyhow::Result<Requests> {
    Ok(Requests::new(cluster.audit().requests(mark, cluster::USER).await?))
}

/// Waits until the operator has written nothing except its lease for a while.
async fn quiet(cluster: &Cluster) -> anyhow::Result<()> {
    let (mut mark, mut since) = (cluster.audit().mark()?, Instant::now());
    until("the operator is quiet", async || {
        if requests_since(cluster, mark).await?.writes() > 0 {
            (mark, since) = (cluster.audit().mark()?, Instant::now());
        }
        Ok(since.elapsed() > QUIET)
    })
    .await
}
