//! The operator's own `/healthz`, `/readyz` and `/metrics`.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

use crate::runtime::ready_gate::Gate;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: u32 = 128;

/// Listens on an address. `[::]` accepts IPv4 connections, too, regardless of the node's settings. On a node without
/// IPv6 it becomes `0.0.0.0`.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match bind(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    }
}

/// Returns true if the node has no IPv6. An address that is already in use does not count.
fn lacks_ipv6(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Returns the router of the endpoints.
pub(crate) fn router(gate: Gate, registry: Registry) -> Router {
    let registry = Arc::new(registry);
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(move || async move { readiness(&gate) }))
        .route("/metrics", get(move || async move { metrics(&registry) }))
}

fn readiness(gate: &Gate) -> (StatusCode, &'static str) {
    if gate.is_open() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the caches are not synced yet\n")
    }
}

fn metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn both_families_reach_every_address() {
        let both = listen("[::]:0".parse().unwrap()).unwrap();
        let port = both.local_addr().unwrap().port();
        for address in ["127.0.0.1", "::1"] {
            TcpStream::connect((address, port)).await.unwrap();
            both.accept().await.unwrap();
        }
        let taken = listen((Ipv6Addr::UNSPECIFIED, port).into()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_node_without_ipv6_is_distinguished_from_a_port_in_use() {
        const EAFNOSUPPORT: i32 = 97;
        const EADDRNOTAVAIL: i32 = 99;
        for code in [EAFNOSUPPORT, EADDRNOTAVAIL] {
            assert!(lacks_ipv6(&io::Error::from_raw_os_error(code)), "{code}");
        }
        for kind in [io::ErrorKind::AddrInUse, io::ErrorKind::PermissionDenied] {
            assert!(!lacks_ipv6(&kind.into()), "{kind}");
        }
    }
}
