//! An open loop: requests come at a fixed rate, however late the answers are.
//!
//! The latency of a request counts from the moment at which it is handed out, even if no connection is free yet. So a
//! stall of the server shows in all requests that were due meanwhile (no coordinated omission).

use std::thread;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use nix::sys::prctl::set_timerslack;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::connection::{Connection, Message};
use super::{Order, microseconds};

/// Sends so many requests in a second, and returns their latencies in microseconds. Those that wait for a connection at
/// the end are not sent.
pub(super) async fn send(order: &Order, message: &Message, rate: f64) -> anyhow::Result<Vec<u32>> {
    let mut connections = Vec::new();
    for _ in 0..order.connections {
        connections.push(Connection::open(message).await?);
    }
    let time = Duration::from_secs_f64(order.seconds);
    // Bounded by the rate and the time.
    let (due, waiting) = unbounded_channel();
    // The runtime's own timers know milliseconds only.
    let pacer = thread::spawn(move || pace(&due, time, rate));
    let (waiting, end) = (Mutex::new(waiting), Instant::now() + time);
    let sent = connections.into_iter().map(|connection| answer(connection, &waiting, end));
    let latencies = try_join_all(sent).await?.concat();
    _ = pacer.join();
    Ok(latencies)
}

/// Hands out requests until the time is over.
fn pace(due: &UnboundedSender<Instant>, time: Duration, rate: f64) {
    // Without it the system adds up to 50 µs to each sleep; where it is refused, requests come in small bursts.
    _ = set_timerslack(1);
    let start = Instant::now();
    let mut next = Duration::ZERO;
    for number in 1_u32.. {
        thread::sleep(next.saturating_sub(start.elapsed()));
        if next >= time || due.send(Instant::now()).is_err() {
            return;
        }
        next = Duration::from_secs_f64(f64::from(number) / rate);
    }
}

/// Sends what is due over one connection.
async fn answer(
    mut connection: Connection<'_>,
    waiting: &Mutex<UnboundedReceiver<Instant>>,
    end: Instant,
) -> anyhow::Result<Vec<u32>> {
    let mut latencies = Vec::new();
    loop {
        let next = waiting.lock().await.recv().await;
        let Some(due) = next.filter(|_| Instant::now() < end) else { return Ok(latencies) };
        connection.send().await?;
        latencies.push(microseconds(due.elapsed()));
    }
}
