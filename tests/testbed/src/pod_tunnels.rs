//! SOCKS 5 proxy to pods (RFC 1928), by which the API server proxies to pods that are processes. An HTTP proxy cannot do
//! that: the API server would send it the host of its own client in place of the pod's address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::address::Announced;

/// Most tunnels at the same time.
const TUNNELS: usize = 256;
/// Timeout of the handshake with its connection to the pod.
const PATIENCE: Duration = Duration::from_secs(10);
/// Version of the protocol.
const VERSION: u8 = 5;
/// Method without authentication.
const NO_AUTHENTICATION: u8 = 0;
/// Command to connect.
const CONNECT: u8 = 1;
/// Type of an IPv4 address.
const IPV4: u8 = 1;

/// Running proxy; it ends when dropped. It connects to announced addresses of pods, and refuses everything else.
pub(crate) struct PodTunnels {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl PodTunnels {
    /// Starts the proxy on a free loopback port, on the current tokio runtime.
    ///
    /// # Errors
    /// If it cannot listen.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen on loopback")?;
        let address = listener.local_addr()?;
        Ok(Self { address, _task: AbortOnDropHandle::new(tokio::spawn(accept(listener))) })
    }

    /// Value for `HTTP_PROXY`: `socks5://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("socks5://{}", self.address)
    }
}

async fn accept(listener: TcpListener) {
    // Dropped with this task, and every tunnel with it.
    let mut tunnels = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = tunnels.join_next() => {}
            accepted = listener.accept(), if tunnels.len() < TUNNELS => match accepted {
                Ok((client, _)) => drop(tunnels.spawn(tunnel(client))),
                Err(error) => {
                    tracing::warn!("accept a connection: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn tunnel(mut client: TcpStream) {
    let ended = async {
        let mut pod = timeout(PATIENCE, connected(&mut client)).await??;
        copy_bidirectional(&mut client, &mut pod).await
    };
    if let Err(error) = ended.await {
        tracing::debug!("a tunnel: {error}");
    }
}

/// Does the handshake, and returns the connection to the pod.
async fn connected(client: &mut TcpStream) -> io::Result<TcpStream> {
    let [_version, methods] = read(client).await?;
    client.read_exact(&mut vec![0; methods.into()]).await?;
    client.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    let pod = match read(client).await? {
        [VERSION, CONNECT, _, IPV4, first, second, third, fourth, high, low] => {
            let address = Ipv4Addr::new(first, second, third, fourth).to_string();
            match address.parse::<Announced>() {
                Ok(pod) => TcpStream::connect(pod.dialable(u16::from_be_bytes([high, low]))).await,
                Err(error) => Err(io::Error::other(error)),
            }
        }
        request => Err(io::Error::other(format!("not a connection to an IPv4 address: {request:?}"))),
    };
    // 1 is a general failure. The rest is the proxy's own address, which clients do not need.
    client.write_all(&[VERSION, pod.is_err().into(), 0, IPV4, 0, 0, 0, 0, 0, 0]).await?;
    pod
}

async fn read<const LENGTH: usize>(client: &mut TcpStream) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}
