//! Turns of all servers with the same number of workers.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::cores::{Cores, spawn_on};
use super::figures::{Closed, Figures, MemoryOfServer};
use super::load::{Order, Report};
use super::program::Program;
use super::requests::Tokens;
use super::servers::Peer;
use super::tenant::BenchTenant;
use super::{Bench, Kind};
use crate::process;

/// Time after a start until a server is idle.
pub(super) const REST: Duration = Duration::from_secs(1);

/// Starts all servers, and measures them in turns.
pub(super) async fn measure(
    bench: &Bench,
    (tenant, tokens): (&BenchTenant, &Tokens),
    cores: &Cores,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Figures> {
    let (size, mut running) = (&bench.size, Vec::new());
    for server in &bench.servers {
        running.push(Program::start(server, tenant, &cores.server).await?);
    }
    tokio::time::sleep(REST).await;
    let idle = running.iter().map(Program::memory).collect::<Result<Vec<_>, _>>()?;
    let mut figures = Figures::default();
    for turn in 0..=size.turns {
        say(&format!("turn {turn} of {}", size.turns));
        for (index, kind) in pairs(bench) {
            let program = running.get(index).context("a server")?;
            let mut order = kind.order(program.address, tokens, size.connections);
            order.seconds = size.seconds;
            // The first turn fills caches, including those of every user.
            order.at_least = if turn == 0 { u64::try_from(order.tokens.len())? } else { 0 };
            let closed =
                ask(&|| program.cpu(), &order, cores).await.with_context(|| server_and_kind(bench, index, kind))?;
            if turn > 0 {
                figures.note(index, kind, closed);
            }
        }
    }
    for turn in 1..=size.turns {
        say(&format!("turn {turn} of {} at a fixed rate", size.turns));
        for (index, kind) in pairs(bench) {
            let program = running.get(index).context("a server")?;
            let Some(rate) = rate(bench, &figures, index, kind) else { continue };
            let mut order = kind.order(program.address, tokens, size.connections);
            (order.seconds, order.rate) = (size.seconds, Some(rate));
            let report = load(&order, cores.load).await.with_context(|| server_and_kind(bench, index, kind))?;
            figures.note_latency(index, kind, latency(&report, rate));
        }
    }
    for (index, (program, idle)) in running.iter().zip(idle).enumerate() {
        figures.note_memory(index, MemoryOfServer { idle, after: program.memory()? });
    }
    Ok(figures)
}

/// Returns each kind of request with each server that supports it.
fn pairs(bench: &Bench) -> impl Iterator<Item = (usize, Kind)> {
    let servers = |kind: Kind| bench.servers.iter().enumerate().filter(move |(_, server)| server.peer.answers(kind));
    bench.size.kinds().into_iter().flat_map(move |kind| servers(kind).map(move |(index, _)| (index, kind)))
}

fn server_and_kind(bench: &Bench, index: usize, kind: Kind) -> String {
    format!("{}, {}", bench.servers.get(index).map_or("?", |server| &server.name), kind.name())
}

/// Returns half of the maximum rate of rmcp without authentication. For calls, it is the rmcp with the same client of
/// Graph. Returns `None` for a server that does not reach this rate.
fn rate(bench: &Bench, figures: &Figures, index: usize, kind: Kind) -> Option<f64> {
    let reference = match kind {
        Kind::List => Peer::Bare,
        Kind::Call => Peer::SameClient,
        Kind::Flood | Kind::UsersList | Kind::UsersCall => return None,
    };
    let reference = bench.servers.iter().position(|server| server.peer == reference)?;
    let half = figures.closed(reference, kind)?.rate / 2.0;
    Some(half).filter(|half| figures.closed(index, kind).is_some_and(|own| own.rate > *half))
}

/// Returns the 99th percentile of the latency, in microseconds. It is infinite if the answers did not come at this
/// rate.
fn latency(report: &Report, rate: f64) -> f64 {
    const KEPT: f64 = 0.95;
    let answered = u32::try_from(report.answered).map_or(f64::MAX, f64::from);
    if answered / report.seconds < KEPT * rate { f64::INFINITY } else { report.p99.into() }
}

/// Measures a server at its maximum rate. `cpu` is its processor time so far.
pub(super) async fn ask(
    cpu: &(dyn Fn() -> anyhow::Result<Duration> + Sync),
    order: &Order,
    cores: &Cores,
) -> anyhow::Result<Closed> {
    let own = std::process::id();
    let (before, graph_before, start) = (cpu()?, process::cpu(own)?, Instant::now());
    let report = load(order, cores.load).await?;
    let taken = cpu()?.saturating_sub(before).as_secs_f64();
    let graph = process::cpu(own)?.saturating_sub(graph_before).as_secs_f64() / start.elapsed().as_secs_f64();
    ensure!(report.answered > 0, "nothing was answered");
    let answered = f64::from(u32::try_from(report.answered)?);
    Ok(Closed {
        rate: answered / report.seconds,
        cpu: taken * 1e6 / answered,
        load: report.busy + if cores.graph == cores.load { graph } else { 0.0 },
    })
}

/// Executes an order in a separate process.
pub(super) async fn load(order: &Order, core: usize) -> anyhow::Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("load").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = spawn_on(&[core], command)?;
    child.stdin.take().context("standard input")?.write_all(serde_json::to_string(order)?.as_bytes()).await?;
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "the load ended: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::{Report, latency};

    #[test]
    fn a_latency_counts_only_at_the_requested_rate() {
        let report = |answered| Report { answered, seconds: 2.0, p99: 800, busy: 0.5 };
        assert_eq!(latency(&report(2000), 1000.0), 800.0);
        assert_eq!(latency(&report(1900), 1000.0), 800.0);
        assert_eq!(latency(&report(1899), 1000.0), f64::INFINITY);
    }
}
