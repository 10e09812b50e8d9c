//! Forwards a request to a pod. The edge and the pod proxy dial only here. It streams in both directions. It does not
//! reuse connections, so that it never uses one that a deleted pod has closed.

use std::net::SocketAddrV4;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::address::{Announced, Pods};

/// Timeout of a connection. On this machine, a pod answers at once or nothing listens.
const CONNECT: Duration = Duration::from_secs(1);

/// Headers of a request or an answer that apply to one connection only (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Forwarded body, or one of our own.
pub(crate) type Body = Either<Limited, Full<Bytes>>;

/// Forwarded body that ends with an error when its time is over.
pub(crate) struct Limited {
    body: Incoming,
    over: Option<Pin<Box<Sleep>>>,
}

impl Limited {
    pub(crate) fn new(body: Incoming, until: Option<Instant>) -> Self {
        Self { body, over: until.map(|until| Box::pin(sleep_until(until))) }
    }
}

impl hyper::body::Body for Limited {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.over.as_mut().is_some_and(|over| over.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Some(Err("the timeout of this answer has passed".into())));
        }
        Pin::new(&mut self.body).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Port of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) pod: Announced,
    pub(crate) port: u16,
}

#[derive(Debug, Error)]
pub(crate) enum ForwardError {
    #[error("none could be reached: {}", .0.join("; "))]
    Unreachable(Vec<String>),
    #[error("{at} did not answer: {error}")]
    NoAnswer { at: SocketAddrV4, error: hyper::Error },
    #[error("the request's target is not a path: {0}")]
    NoPath(#[from] http::Error),
}

/// Sends the request to the first target that can be reached, and returns its answer. No other target sees the request.
pub(crate) async fn forward(
    mut request: Request<Incoming>,
    targets: impl IntoIterator<Item = Target>,
    pods: Pods,
) -> Result<Response<Incoming>, ForwardError> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = Uri::builder().path_and_query(path).build()?;
    *request.version_mut() = Version::HTTP_11;
    remove_hop_by_hop(request.headers_mut());

    let mut failures = Vec::new();
    for target in targets {
        let at = target.pod.dialable_as(pods, target.port);
        match connect(at).await {
            Ok(mut connection) => {
                let answer = connection.send_request(request).await;
                let mut answer = answer.map_err(|error| ForwardError::NoAnswer { at, error })?;
                remove_hop_by_hop(answer.headers_mut());
                return Ok(answer);
            }
            Err(error) => failures.push(format!("{at}: {error}")),
        }
    }
    Err(ForwardError::Unreachable(failures))
}

async fn connect(at: SocketAddrV4) -> std::io::Result<SendRequest<Incoming>> {
    let stream = timeout(CONNECT, TcpStream::connect(at)).await??;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    // The connection ends with the sender and the body of the answer.
    tokio::spawn(connection);
    Ok(sender)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}
