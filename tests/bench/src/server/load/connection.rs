//! One persistent connection, with requests one after another.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Order;

/// Timeout of one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Request that is repeated.
pub(super) struct Message {
    address: SocketAddr,
    uri: Uri,
    headers: HeaderMap,
    tokens: Vec<HeaderValue>,
    /// Number of requests so far.
    made: Cell<usize>,
    body: Bytes,
    status: StatusCode,
    part: memmem::Finder<'static>,
}

impl Message {
    pub(super) fn new(order: &Order) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::from_iter([
            (HOST, HeaderValue::try_from(order.address.to_string())?),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (ACCEPT, HeaderValue::from_static("application/json, text/event-stream")),
        ]);
        for (name, value) in &order.headers {
            headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        let tokens = order.tokens.iter().map(|token| HeaderValue::try_from(format!("Bearer {token}")));
        Ok(Self {
            address: order.address,
            uri: order.path.parse()?,
            headers,
            tokens: tokens.collect::<Result<_, _>>()?,
            made: Cell::new(0),
            body: Bytes::from(order.body.clone()),
            status: StatusCode::from_u16(order.status)?,
            part: memmem::Finder::new(&order.part).into_owned(),
        })
    }

    /// Number of requests so far.
    pub(super) fn made(&self) -> usize {
        self.made.get()
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let turn = self.made.replace(self.made.get() + 1).checked_rem(self.tokens.len());
        if let Some(token) = turn.and_then(|turn| self.tokens.get(turn)) {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        request
    }
}

/// A connection, opened again if the server has closed it.
pub(super) struct Connection<'a> {
    message: &'a Message,
    sender: SendRequest<Full<Bytes>>,
}

impl<'a> Connection<'a> {
    pub(super) async fn open(message: &'a Message) -> anyhow::Result<Self> {
        Ok(Self { message, sender: connect(message.address).await? })
    }

    /// Sends the request, and checks the answer.
    pub(super) async fn send(&mut self) -> anyhow::Result<()> {
        if self.sender.ready().await.is_err() {
            self.sender = connect(self.message.address).await?;
        }
        let answered = async {
            let answer = self.sender.send_request(self.message.request()).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        let (status, body) = timeout(PATIENCE, answered).await.context("no answer in 30 s")??;
        let as_expected = status == self.message.status && self.message.part.find(&body).is_some();
        ensure!(as_expected, "answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
