//! Keeps TCP ports for another program of the same user. The containers of a pod share its network, so that a backend
//! could otherwise take the companion's ports while the companion restarts, and receive the tokens of callers.
//!
//! A port is bound with `SO_REUSEPORT`, and nothing listens on it. The kernel then lets only sockets of the same user
//! with `SO_REUSEPORT` bind it, too. `SO_REUSEADDR` must not be set: with it on both sides, the user does not count.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context;
use nix::errno::Errno;
use socket2::SockRef;
use tokio::net::TcpSocket;

use crate::log::Log;
use crate::signals::StopSignals;

/// Holds the ports of these addresses until SIGTERM or SIGINT.
///
/// # Errors
/// If another program has one of them. The message has the next step.
pub async fn hold(addresses: &[SocketAddr], log: &Log) -> anyhow::Result<()> {
    let mut stop = StopSignals::take()?;
    let held = addresses.iter().map(|address| held(*address)).collect::<anyhow::Result<Vec<TcpSocket>>>()?;
    for socket in &held {
        log.say(format_args!("holding {}", socket.local_addr()?));
    }
    stop.asked().await;
    drop(held);
    Ok(())
}

fn held(address: SocketAddr) -> anyhow::Result<TcpSocket> {
    let bound = match bind(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    };
    bound.with_context(|| {
        format!(
            "cannot hold {address}, so another container could receive the tokens of callers; let no other container of \
             the pod listen on port {}",
            address.port()
        )
    })
}

/// Binds the address like the companion's listener: `[::]` includes IPv4.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Returns true for errors of an IPv6 address on a node without IPv6.
fn is_without_ipv6(error: &io::Error) -> bool {
    let codes = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
