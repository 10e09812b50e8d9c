//! Reachability of pod ports that only the pod's own server should reach.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream};
use tokio::{net::TcpStream, time::timeout};

use crate::mcpserver::{build::ADMIN_PORT, pod_status::PolledPod};

/// The timeout of a connection.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The most pods of one server that are tried at once.
const AT_ONCE: usize = 16;

/// The result of the attempts to reach a pod's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// This port is reachable.
    Reached(u16),
    /// Only the admin port is reachable, which is allowed.
    Unreached,
    /// No port is reachable, which proves nothing.
    Unproven,
}

/// Tries the ports of each ready pod on which a process listens for connections from outside the pod. Returns the
/// results by pod name.
pub(crate) async fn reach(polled: &[PolledPod]) -> BTreeMap<String, Reach> {
    // Owned values: the future would not be Send with borrowed ones.
    let tries: Vec<_> = polled.iter().filter_map(to_try).collect();
    stream::iter(tries)
        .map(|(name, address, ports)| async move {
            let reach = match address {
                Some(address) => reach_ports(address, ADMIN_PORT, ports).await,
                None => Reach::Unproven,
            };
            (name, reach)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

/// Returns name, address and ports of a pod whose ports should be tried.
fn to_try(polled: &PolledPod) -> Option<(String, Option<IpAddr>, BTreeSet<u16>)> {
    let listens = polled.report.as_ref().ok()?.backend.as_ref()?.listens.as_ref()?;
    let is_tried = polled.pod.is_ready() && !listens.is_empty();
    is_tried.then(|| (polled.pod.name().to_owned(), polled.pod.address, listens.iter().map(SocketAddr::port).collect()))
}

async fn reach_ports(address: IpAddr, control: u16, ports: BTreeSet<u16>) -> Reach {
    let tried =
        join_all(ports.into_iter().map(|port| async move { answers(address, port).await.then_some(port) })).await;
    match tried.into_iter().flatten().next() {
        Some(port) => Reach::Reached(port),
        None if answers(address, control).await => Reach::Unreached,
        None => Reach::Unproven,
    }
}

async fn answers(address: IpAddr, port: u16) -> bool {
    timeout(TIMEOUT, TcpStream::connect((address, port))).await.is_ok_and(|connected| connected.is_ok())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_is_reached_if_it_answers_and_unreached_only_if_the_control_port_answers() {
        let address = IpAddr::from([127, 0, 0, 1]);
        let listen = async || TcpListener::bind((address, 0)).await.unwrap();
        let (open, control, closed) = (listen().await, listen().await, listen().await);
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let (open_port, control_port, closed_port) = (port(&open), port(&control), port(&closed));
        drop(closed);
        let reached = reach_ports(address, control_port, [closed_port, open_port].into()).await;
        assert_eq!(reached, Reach::Reached(open_port));
        assert_eq!(reach_ports(address, control_port, [closed_port].into()).await, Reach::Unreached);
        assert_eq!(reach_ports(address, closed_port, [closed_port].into()).await, Reach::Unproven);
    }
}
