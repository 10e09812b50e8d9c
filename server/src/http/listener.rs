//! The listener under the routes: accepts connections, bounds them in number and in patience, and lets them finish.
//!
//! HTTP/1.1 alone, which is what proxies speak to pods: no client could otherwise be put off until it has said which
//! version it speaks, and an idle HTTP/2 connection would be kept for as long as it answers pings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower_http::add_extension::AddExtensionLayer;

use super::client_address::Peer;

/// Connections at a time; more wait in the kernel's queue.
const MAXIMUM_CONNECTIONS: usize = 1024;

/// How long a connection may do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the head of a request is there. hyper counts the pause between two requests too.
    pub head: Duration,
    /// Until the client takes some of its answer, for which hyper itself waits for ever.
    pub write: Duration,
}

/// The head's is longer than proxies keep an idle connection (nginx and most load balancers 60 s): were we the first to
/// close it, their next request could be lost.
pub const PATIENCE: Patience = Patience { head: Duration::from_secs(90), write: Duration::from_secs(30) };

/// Bytes read ahead of what is understood, most of all the head of a request: enough for a token of 16 KiB and the
/// cookies of a host, and on all connections together a fraction of the pod's memory.
const MAXIMUM_BUFFER: usize = 64 * 1024;

/// How long requests that are being answered may take after the stop.
const FINISH_TIME_LIMIT: Duration = Duration::from_secs(20);

/// Serves until `stop` is cancelled, then lets requests that are being answered finish, for at most 20 s. A connection on
/// which no whole head of a request arrives within `patience.head`, or nothing of an answer is taken within
/// `patience.write`, is closed.
pub async fn serve(listener: TcpListener, router: Router, patience: Patience, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    while let Some((stream, peer)) = stop.run_until_cancelled(accept(&listener)).await {
        let Some(Ok(permit)) = stop.run_until_cancelled(Arc::clone(&connections).acquire_owned()).await else { break };
        let service = ServiceBuilder::new().layer(AddExtensionLayer::new(Peer(peer.ip()))).service(router.clone());
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(patience.write));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience.head)
            .max_buf_size(MAXIMUM_BUFFER)
            .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(FINISH_TIME_LIMIT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests still unanswered {} s after the stop are cut off", FINISH_TIME_LIMIT.as_secs());
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            // Out of file descriptors, most likely: other connections will free some.
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A connection to an impatient listener that answers every GET with this; it ends with the test's runtime.
    async fn connect(answer: String) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", axum::routing::get(|| async { answer }));
        let patience = Patience { head: Duration::from_millis(500), write: Duration::from_millis(500) };
        tokio::spawn(serve(listener, router, patience, CancellationToken::new()));
        TcpStream::connect(address).await.unwrap()
    }

    /// What a client that sends this, and nothing more, is answered until the connection is closed.
    async fn answer_to(sent: &[u8]) -> String {
        let mut stream = connect("hello".to_owned()).await;
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        closed.expect("the connection is still open").unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_connection_that_takes_nothing_of_its_answer_is_closed() {
        // More than the kernel keeps for a reader.
        let mut stream = connect("x".repeat(64 * 1024 * 1024)).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let closed = async {
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), closed).await.expect("the connection is still open");
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed() {
        answer_to(b"").await;
    }

    #[tokio::test]
    async fn a_connection_that_sends_half_of_the_http_2_preface_is_closed() {
        answer_to(b"PRI * HTTP/2.0\r\n").await;
    }

    #[tokio::test]
    async fn a_connection_that_sends_half_a_request_is_closed() {
        answer_to(b"GET / HTTP/1.1\r\nHost: x\r\n").await;
    }

    #[tokio::test]
    async fn a_connection_that_asks_and_then_says_nothing_is_answered_and_closed() {
        let answer = answer_to(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn a_head_is_accepted_up_to_the_limit_and_refused_beyond() {
        let begin = "GET / HTTP/1.1\r\nHost: x\r\nCookie: ";
        let head = |size: usize| begin.to_owned() + &"x".repeat(size - begin.len());
        let whole = head(MAXIMUM_BUFFER - 1024) + "\r\n\r\n";
        assert!(answer_to(whole.as_bytes()).await.starts_with("HTTP/1.1 200 "));
        assert!(answer_to(head(MAXIMUM_BUFFER).as_bytes()).await.starts_with("HTTP/1.1 431 "));
    }
}
