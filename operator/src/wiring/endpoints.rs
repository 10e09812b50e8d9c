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

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 128;

/// Listens on an address. `[::]` takes IPv4 connections, too, however the node is set up; where it cannot be listened on,
/// `0.0.0.0` is: a node may have no IPv6.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match bind(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into()).map_err(|_| error)
        }
        bound => bound,
    }
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

/// The routes.
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
        (StatusCode::SERVICE_UNAVAILABLE, "the watches have not seen everything yet\n")
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
    async fn both_families_reach_every_address_and_ipv4_alone_where_ipv6_is_taken() {
        let both = listen("[::]:0".parse().unwrap()).unwrap();
        for address in ["127.0.0.1", "::1"] {
            TcpStream::connect((address, both.local_addr().unwrap().port())).await.unwrap();
            both.accept().await.unwrap();
        }
        let taken = TcpSocket::new_v6().unwrap();
        SockRef::from(&taken).set_only_v6(true).unwrap();
        taken.bind("[::]:0".parse().unwrap()).unwrap();
        let taken = taken.listen(1).unwrap();
        let port = taken.local_addr().unwrap().port();
        let alone = listen((Ipv6Addr::UNSPECIFIED, port).into()).unwrap();
        assert_eq!(alone.local_addr().unwrap(), (Ipv4Addr::UNSPECIFIED, port).into());
        assert!(listen((Ipv6Addr::UNSPECIFIED, port).into()).is_err(), "both are taken");
    }
}
