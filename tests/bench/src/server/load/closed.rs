//! Closed loop: each connection sends its next request after an answer. It measures the maximum rate of a server.

use std::time::{Duration, Instant};

use futures::future::try_join_all;

use super::connection::{Connection, Message};
use super::{Order, microseconds};

/// Sends requests, and returns their latencies in microseconds.
pub(super) async fn send(order: &Order, message: &Message) -> anyhow::Result<Vec<u32>> {
    let at_least = usize::try_from(order.at_least)?;
    let end = Instant::now() + Duration::from_secs_f64(order.seconds);
    let connections = (0..order.connections).map(async |_| {
        let (mut connection, mut latencies) = (Connection::open(message).await?, Vec::new());
        let mut start = Instant::now();
        while start < end || message.made() < at_least {
            connection.send().await?;
            let now = Instant::now();
            latencies.push(microseconds(now - start));
            start = now;
        }
        anyhow::Ok(latencies)
    });
    Ok(try_join_all(connections).await?.concat())
}
