//! Load: a process that sends requests to one server, and reports the answers.
//!
//! It is this same program, started again. It reads an [`Order`] as JSON from its standard input, and writes a
//! [`Report`] as JSON to its standard output.

mod closed;
mod connection;
mod open;
mod pipes;

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use self::connection::Message;
use self::pipes::Pipes;
use super::statistics::percentile;
use crate::process;

/// A server that uses its standard input and output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Process {
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    /// Core of the process.
    pub(super) core: usize,
}

/// Requests to send, and their duration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Address of the server.
    pub(super) address: SocketAddr,
    /// Path of its endpoint.
    pub(super) path: String,
    /// Process that the load starts and uses instead, at its maximum rate.
    pub(super) process: Option<Process>,
    /// Headers of each request, besides the common ones.
    pub(super) headers: Vec<(String, String)>,
    /// Body of each request.
    pub(super) body: String,
    /// Bearer tokens, used in turn. Without any, requests have no token.
    pub(super) tokens: Vec<String>,
    /// HTTP status of each answer.
    pub(super) status: u16,
    /// A part of the body of each answer.
    pub(super) part: String,
    /// Persistent connections. For a process, concurrent requests.
    pub(super) connections: usize,
    /// Duration of the requests, in seconds.
    pub(super) seconds: f64,
    /// Minimum number of requests, even if they take longer.
    pub(super) at_least: u64,
    /// Requests per second. Without it, each connection sends the next request after an answer.
    pub(super) rate: Option<f64>,
}

/// Results of an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// Number of expected answers. Any other answer ends the load with an error.
    pub(super) answered: u64,
    /// Time from the first request to the last answer, in seconds.
    pub(super) seconds: f64,
    /// Latency that 99 of 100 requests did not exceed, in microseconds.
    pub(super) p99: u32,
    /// Share of time in which the load itself used its core, 0 to 1.
    pub(super) busy: f64,
}

/// Reads an order from standard input, and prints the report.
///
/// # Errors
/// If the order is invalid, the server has ended, or an answer is not the expected one.
pub fn run() -> anyhow::Result<()> {
    let mut order = String::new();
    std::io::stdin().read_to_string(&mut order)?;
    let order: Order = serde_json::from_str(&order).context("the order")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", serde_json::to_string(&runtime.block_on(carry_out(&order))?)?);
    Ok(())
}

async fn carry_out(order: &Order) -> anyhow::Result<Report> {
    let message = Message::new(order)?;
    // Its start is not measured.
    let pipes = match &order.process {
        Some(process) => Some(Pipes::open(process).await?),
        None => None,
    };
    let (before, start) = (process::cpu(std::process::id())?, Instant::now());
    let mut latencies = match (pipes, order.rate) {
        (Some(pipes), _) => pipes.send(order).await?,
        (None, None) => closed::send(order, &message).await?,
        (None, Some(rate)) => open::send(order, &message, rate).await?,
    };
    let (taken, seconds) = (process::cpu(std::process::id())?.saturating_sub(before), start.elapsed().as_secs_f64());
    Ok(Report {
        answered: u64::try_from(latencies.len())?,
        seconds,
        p99: percentile(&mut latencies, 99),
        busy: taken.as_secs_f64() / seconds,
    })
}

/// Whole microseconds.
fn microseconds(latency: Duration) -> u32 {
    u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)
}
