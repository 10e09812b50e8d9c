//! Forward proxy for pods of one sort, which forwards connections that NetworkPolicies allow. Set it in `HTTPS_PROXY`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{Identity, NetworkPolicies};
use crate::address::Announced;
use crate::forward::Body;
use crate::serve::{Serving, answer, serve};

const CONNECT: Duration = Duration::from_secs(5);

/// Running proxy; it ends when dropped, except for open tunnels.
pub struct EgressProxy {
    serving: Serving,
}

impl EgressProxy {
    /// Starts the proxy on a free loopback port, for these pods. It only opens tunnels (CONNECT).
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(policies: NetworkPolicies, identity: Identity) -> anyhow::Result<Self> {
        let serving = serve(None, move |request, _| handle(request, policies.clone(), identity.clone())).await?;
        Ok(Self { serving })
    }

    /// Value for the HTTPS proxy: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.serving.address())
    }
}

async fn handle(request: Request<Incoming>, policies: NetworkPolicies, identity: Identity) -> Response<Body> {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let (&Method::CONNECT, Some(authority)) = (request.method(), authority) else {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "this proxy only opens tunnels: use HTTPS");
    };
    let addresses = match timeout(CONNECT, lookup_host(&authority)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return answer(StatusCode::BAD_GATEWAY, format!("{authority}: {error}")),
        Err(_) => {
            return answer(StatusCode::GATEWAY_TIMEOUT, format!("{authority} was not resolved before the timeout"));
        }
    };
    let mut why = format!("{authority} has no address");
    for address in addresses {
        if let Err(refused) = policies.check(&identity, address.ip(), address.port()) {
            why = format!("{authority}: {refused}");
            continue;
        }
        match timeout(CONNECT, TcpStream::connect(dialable(address))).await {
            Ok(Ok(stream)) => {
                tokio::spawn(tunnel(request, stream));
                return Response::new(Either::Right(Full::new(Bytes::new())));
            }
            Ok(Err(error)) => why = format!("{authority}: {error}"),
            Err(_) => why = format!("{authority} does not answer"),
        }
    }
    answer(StatusCode::GATEWAY_TIMEOUT, why)
}

/// Returns the address to dial. The announced address of a pod may belong to another machine.
fn dialable(address: SocketAddr) -> SocketAddr {
    match (address.ip(), address.ip().to_string().parse::<Announced>()) {
        (IpAddr::V4(_), Ok(pod)) => pod.dialable(address.port()).into(),
        _ => address,
    }
}

async fn tunnel(request: Request<Incoming>, mut stream: TcpStream) {
    match hyper::upgrade::on(request).await {
        Ok(upgraded) => {
            // Both ends decide how the tunnel ends.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut stream).await;
        }
        Err(error) => tracing::debug!("a tunnel: {error}"),
    }
}
