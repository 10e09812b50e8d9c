//! HTTP server on a free loopback port, with or without TLS. It ends when its handle is dropped.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::forward::Body;

const CONNECTIONS: usize = 1024;
/// Timeout of the TLS handshake, and of a request's head.
const PATIENCE: Duration = Duration::from_secs(10);

/// Running server.
pub(crate) struct Serving {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Serving {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Answers every request with the result of `handler`, which gets the request and the client's address.
pub(crate) async fn serve<H, F>(tls: Option<TlsAcceptor>, handler: H) -> anyhow::Result<Serving>
where
    H: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen on loopback")?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(accept(listener, tls, Arc::new(handler)));
    Ok(Serving { address, _task: AbortOnDropHandle::new(task) })
}

/// Returns an answer of our own with the reason as its text.
pub(crate) fn answer(status: StatusCode, why: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::new(Bytes::from(why.into() + "\n"))));
    *response.status_mut() = status;
    let text = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

async fn accept<H, F>(listener: TcpListener, tls: Option<TlsAcceptor>, handler: Arc<H>)
where
    H: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(converse(stream, peer.ip(), tls.clone(), Arc::clone(&handler)));
                }
                Err(error) => {
                    tracing::warn!("accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn converse<H, F>(stream: TcpStream, peer: IpAddr, tls: Option<TlsAcceptor>, handler: Arc<H>)
where
    H: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // Parts of an event stream must not wait for each other.
    let _ = stream.set_nodelay(true);
    let stream = match tls {
        None => tokio_util::either::Either::Left(stream),
        Some(tls) => match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => tokio_util::either::Either::Right(stream),
            Ok(Err(error)) => return tracing::debug!("TLS handshake: {error}"),
            Err(_) => return tracing::debug!("TLS handshake: timeout"),
        },
    };
    let service = service_fn(move |request| {
        let response = handler(request, peer);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    server.http2().timer(TokioTimer::new());
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!("a connection ended: {error}");
    }
}
