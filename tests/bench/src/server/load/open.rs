//! Open loop: requests are sent at a fixed rate, independent of the answers.
//!
//! The latency of a request starts when it is due, even if no connection is free yet. A stall of the server therefore
//! affects all requests that were due meanwhile (no coordinated omission).

use std::thread;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use nix::sys::prctl::set_timerslack;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::connection::{Connection, Message};
use super::{Order, microseconds};

/// Sends this number of requests per second, and returns their latencies in microseconds. Requests that still wait for
/// a connection at the end are not sent.
pub(super) async fn send(order: &Order, message: &Message, rate: f64) -> anyhow::Result<Vec<u32>> {
    let mut connections = Vec::new();
    for _ in 0..order.connections {
        connections.push(Connection::open(message).await?);
    }
    let time = Duration::from_secs_f64(order.seconds);
    // The rate and the time limit its size.
    let (due, waiting) = unbounded_channel();
    // The timers of the runtime have a resolution of milliseconds.
    let pacer = thread::spawn(move || pace(&due, time, rate));
    let (waiting, end) = (Mutex::new(waiting), Instant::now() + time);
    let sent = connections.into_iter().map(|connection| answer(connection, &waiting, end));
    let latencies = try_join_all(sent).await?.concat();
    _ = pacer.join();
    Ok(latencies)
}

/// Hands out requests until the end of the time.
fn pace(due: &UnboundedSender<Instant>, time: Duration, rate: f64) {
    // Without it the system adds up to 50 µs to each sleep. If it is refused, requests come in small bursts.
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

/// Sends due requests over one connection.
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
