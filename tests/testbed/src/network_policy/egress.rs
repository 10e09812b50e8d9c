//! A forward proxy for pods of one kind, which lets out what NetworkPolicies let out: name it in `HTTPS_PROXY`.

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

/// A running proxy; it ends when dropped, but for the tunnels that are open.
pub struct EgressProxy {
    serving: Serving,
}

impl EgressProxy {
    /// Starts it on a free loopback port, in the place of pods like these. It opens tunnels (CONNECT) alone.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub async fn start(policies: NetworkPolicies, identity: Identity) -> anyhow::Result<Self> {
        let serving = serve(None, move |request, _| handle(request, policies.clone(), identity.clone())).await?;
        Ok(Self { serving })
    }

    /// What to name as HTTPS proxy: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.serving.address())
    }
}

async fn handle(request: Request<Incoming>, policies: NetworkPolicies, identity: Identity) -> Response<Body> {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let (&Method::CONNECT, Some(authority)) = (request.method(), authority) else {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "this proxy opens tunnels alone: use HTTPS");
    };
    let addresses = match timeout(CONNECT, lookup_host(&authority)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return answer(StatusCode::BAD_GATEWAY, format!("{authority}: {error}")),
        Err(_) => return answer(StatusCode::GATEWAY_TIMEOUT, format!("{authority} was not resolved in time")),
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

/// A pod's announced address is another's machine, perhaps.
fn dialable(address: SocketAddr) -> SocketAddr {
    match (address.ip(), address.ip().to_string().parse::<Announced>()) {
        (IpAddr::V4(_), Ok(pod)) => pod.dialable(address.port()).into(),
        _ => address,
    }
}

async fn tunnel(request: Request<Incoming>, mut stream: TcpStream) {
    match hyper::upgrade::on(request).await {
        Ok(upgraded) => {
            // How it ends is for both ends to say.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut stream).await;
        }
        Err(error) => tracing::debug!("a tunnel: {error}"),
    }
}
