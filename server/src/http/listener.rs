//! The listener under the routes: accepts connections, bounds them in number and in patience, and lets them finish.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at a time; more wait in the kernel's queue.
const MAXIMUM_CONNECTIONS: usize = 1024;

/// How long a client may take to send the head of a request. hyper counts the pause between two requests too, so this is
/// longer than proxies keep an idle connection (nginx and most load balancers 60 s): were we the first to close it, their
/// next request could be lost.
const HEAD_TIME_LIMIT: Duration = Duration::from_secs(90);

/// How often an HTTP/2 client is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long requests that are being answered may take after the stop.
const FINISH_TIME_LIMIT: Duration = Duration::from_secs(20);

/// Serves until `stop` is cancelled, then lets requests that are being answered finish, for at most 20 s.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let connections = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    while let Some(stream) = stop.run_until_cancelled(accept(&listener)).await {
        let Some(Ok(permit)) = stop.run_until_cancelled(Arc::clone(&connections).acquire_owned()).await else { break };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_LIMIT);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).max_concurrent_streams(64);
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(FINISH_TIME_LIMIT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests still unanswered {} s after the stop are cut off", FINISH_TIME_LIMIT.as_secs());
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                return stream;
            }
            // Out of file descriptors, most likely: other connections will free some.
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
