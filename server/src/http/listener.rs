//! The listener under the routes. It accepts connections, limits their number and idle times, and lets them finish at
//! the stop. Each listener has its own limits, so that one port cannot block the other.
//!
//! It serves only HTTP/1.1, which proxies use for pods. With HTTP/2, a client could delay the version choice without
//! a time limit, and an idle connection would stay open as long as it answers pings.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
#[cfg(unix)]
use nix::errno::Errno;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use super::client_address::{Peer, network};
use super::connections::{Connections, Place};
use super::held::Held;

/// Most connections at a time.
const MAXIMUM_CONNECTIONS: usize = 1024;

/// Most connections that wait in the kernel for acceptance.
const BACKLOG: u32 = 1024;

/// Most connections of one peer that is not a proxy.
const MAXIMUM_OF_PEER: usize = 64;

/// Idle times after which a connection is closed.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Time until the head of the first request.
    pub first: Duration,
    /// Time until the head of a further request. hyper counts the pause between two requests, too.
    pub head: Duration,
    /// Time until the client reads some of its answer. hyper itself has no such limit.
    pub write: Duration,
    /// Time at the stop for running requests to finish.
    pub finish: Duration,
}

/// Default times. `head` is longer than proxies keep an idle connection (60 s for nginx and most load balancers): if
/// the server closed first, their next request could be lost. `first` is short, because a new connection should have
/// a request.
pub const PATIENCE: Patience = Patience {
    first: Duration::from_secs(10),
    head: Duration::from_secs(90),
    write: Duration::from_secs(30),
    finish: Duration::from_secs(20),
};

/// Time for a yielding connection without a running request to end by itself.
const YIELDING: Duration = Duration::from_secs(1);

/// Size of the read buffer, which must hold the head of a request. It is enough for a token of 16 KiB and the cookies
/// of a host. All connections together use a fraction of the pod's memory.
const MAXIMUM_BUFFER: usize = 64 * 1024;

/// Time for connections to end after they are cut off.
const CUTTING_OFF: Duration = Duration::from_secs(1);

/// The peers whose connections count against the limit.
#[derive(Clone, Debug)]
pub enum Counted {
    /// All peers: clients connect directly.
    Everybody,
    /// All peers except these proxies. If no proxy is named, none counts, because any peer may be one.
    AllBut(Vec<IpNet>),
}

impl Counted {
    /// Returns the counted address. For IPv6 it is the /64 network, all of which one client can use.
    fn of(&self, peer: IpAddr) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        let is_proxy = match self {
            Self::Everybody => false,
            Self::AllBut(proxies) => proxies.is_empty() || proxies.iter().any(|proxies| proxies.contains(&peer)),
        };
        (!is_proxy).then(|| network(peer))
    }
}

/// Programs that may have the port of a listener at the same time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sharing {
    /// No other program.
    Nobody,
    /// Programs of the same user (`SO_REUSEPORT`). One of them holds the port without listening, and so keeps it from
    /// other users while the server does not run. Windows has no such option, so there it means `Nobody`.
    SameUser,
}

/// Listens on an address. `[::]` also takes IPv4 connections, whatever the node's settings. On a node without IPv6 it
/// becomes `0.0.0.0`.
pub fn listen(address: SocketAddr, sharing: Sharing) -> std::io::Result<TcpListener> {
    match bind(address, sharing) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            tracing::warn!(%error, %address, "this node has no IPv6: accepting only IPv4 connections");
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into(), sharing)
        }
        bound => bound,
    }
}

/// System error codes for an IPv6 address on a node without IPv6.
#[cfg(unix)]
const WITHOUT_IPV6: [i32; 2] = [Errno::EAFNOSUPPORT as i32, Errno::EADDRNOTAVAIL as i32];
/// `WSAEAFNOSUPPORT` and `WSAEADDRNOTAVAIL`.
#[cfg(windows)]
const WITHOUT_IPV6: [i32; 2] = [10047, 10049];

fn is_without_ipv6(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| WITHOUT_IPV6.contains(&code))
}

fn bind(address: SocketAddr, sharing: Sharing) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    // On Windows, this would let another program take the port.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(sharing == Sharing::SameUser)?;
    #[cfg(not(unix))]
    let _ = sharing;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop` is cancelled. Running requests may then finish for at most `patience.finish`; the rest are cut
/// off and have ended when this returns. A connection is closed if the head of a request does not arrive in time, or
/// the client reads nothing within `patience.write`.
pub async fn serve<S>(listener: TcpListener, service: S, patience: Patience, counted: Counted, stop: CancellationToken)
where
    S: Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let connections = Arc::new(Connections::new(MAXIMUM_CONNECTIONS, MAXIMUM_OF_PEER));
    let (running, cut_off, mut number) = (TaskTracker::new(), CancellationToken::new(), 0);
    while let Some(accepted) = stop.run_until_cancelled(accept(&listener)).await {
        number += 1;
        let admitted = connections.admit(number, counted.of(accepted.peer.0.ip()));
        let Some(place) = stop.run_until_cancelled(admitted).await else { break };
        // A peer that uses its whole share gets no further connection.
        let Some(place) = place else { continue };
        let connection = connect(accepted, service.clone(), patience, place, stop.clone());
        running.spawn(cut_off.clone().run_until_cancelled_owned(connection));
    }
    drop(listener);
    running.close();
    if tokio::time::timeout(patience.finish, running.wait()).await.is_err() {
        tracing::warn!("cutting off requests that are still running {} s after the stop", patience.finish.as_secs());
        cut_off.cancel();
        let _ = tokio::time::timeout(CUTTING_OFF, running.wait()).await;
    }
}

/// Serves one connection until it ends, must yield, or the listener stops. A running request is then its last.
async fn connect<S>(accepted: Accepted, answering: S, patience: Patience, place: Place, stop: CancellationToken)
where
    S: Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let Accepted { stream, peer } = accepted;
    let connection = Arc::clone(&place.connection);
    let asked = Arc::new(Notify::new());
    let (began, told) = (Arc::clone(&connection), Arc::clone(&asked));
    let service = tower::service_fn(move |mut request: hyper::Request<Incoming>| {
        told.notify_one();
        let asking = began.begin();
        request.extensions_mut().insert(peer);
        let answer = answering.clone().oneshot(request);
        // The answer ends with its body.
        async move { Ok::<_, Infallible>(answer.await?.map(|body| Held::new(body, asking))) }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience.write));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(MAXIMUM_BUFFER)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service));
    let mut served = pin!(served);
    let silent = async {
        if tokio::time::timeout(patience.first, asked.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = &mut served => Some(ended),
        () = silent => None,
        () = connection.yields.cancelled() => None,
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            loop {
                match tokio::time::timeout(YIELDING, &mut served).await {
                    Ok(ended) => break ended,
                    Err(_) if connection.is_asking() => {}
                    // An incomplete head has arrived; do not wait for the rest.
                    Err(_) => break Ok(()),
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
    drop(place);
}

/// A connection and its peer.
struct Accepted {
    stream: TcpStream,
    peer: Peer,
}

async fn accept(listener: &TcpListener) -> Accepted {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                return Accepted { stream, peer: Peer(peer) };
            }
            // Probably no free file descriptors: other connections will free some.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Connects to an impatient listener that answers every GET with this text. It ends with the test's runtime.
    async fn connect(answer: String) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", axum::routing::get(|| async { answer }));
        let short = Duration::from_millis(500);
        let patience = Patience { first: short, head: short, write: short, finish: short };
        tokio::spawn(serve(listener, router, patience, Counted::Everybody, CancellationToken::new()));
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends this and returns everything until the connection is closed.
    async fn answer_to(sent: &[u8]) -> String {
        let mut stream = connect("hello".to_owned()).await;
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        closed.expect("the connection is still open").unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn both_families_reach_every_address_and_a_taken_port_is_no_node_without_ipv6() {
        let both = listen("[::]:0".parse().unwrap(), Sharing::Nobody).unwrap();
        let port = both.local_addr().unwrap().port();
        for address in ["127.0.0.1", "::1"] {
            TcpStream::connect((address, port)).await.unwrap();
            both.accept().await.unwrap();
        }
        let taken = TcpSocket::new_v6().unwrap();
        SockRef::from(&taken).set_only_v6(true).unwrap();
        taken.bind("[::]:0".parse().unwrap()).unwrap();
        let taken = taken.listen(1).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = listen((Ipv6Addr::UNSPECIFIED, port).into(), Sharing::Nobody).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        let one = listen("[::1]:0".parse().unwrap(), Sharing::Nobody).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", one.local_addr().unwrap().port())).await.is_err());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_held_port_is_shared_with_its_holder_and_any_other_is_not_shared() {
        let holder = TcpSocket::new_v6().unwrap();
        SockRef::from(&holder).set_only_v6(false).unwrap();
        holder.set_reuseport(true).unwrap();
        holder.bind("[::]:0".parse().unwrap()).unwrap();
        let address = holder.local_addr().unwrap();
        assert_eq!(listen(address, Sharing::Nobody).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        let listener = listen(address, Sharing::SameUser).unwrap();
        TcpStream::connect(("127.0.0.1", address.port())).await.unwrap();
        listener.accept().await.unwrap();
        let unshared = listen("[::]:0".parse().unwrap(), Sharing::Nobody).unwrap();
        let again = listen(unshared.local_addr().unwrap(), Sharing::SameUser);
        assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    }

    #[cfg(unix)]
    #[test]
    fn only_a_node_without_ipv6_listens_only_on_ipv4() {
        let without = (1..134).filter(|code| is_without_ipv6(&std::io::Error::from_raw_os_error(*code)));
        assert_eq!(Vec::from_iter(without), [Errno::EAFNOSUPPORT as i32, Errno::EADDRNOTAVAIL as i32]);
        assert!(!is_without_ipv6(&std::io::ErrorKind::AddrNotAvailable.into()), "not the system's word");
    }

    #[tokio::test]
    async fn a_connection_that_takes_nothing_of_its_answer_is_closed() {
        // The answer is larger than the kernel's buffers.
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
    async fn a_request_that_does_not_end_in_time_after_the_stop_is_cut_off_before_the_listener_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (request, asked) = (Arc::new(()), Arc::new(Notify::new()));
        let (held, asks) = (Arc::downgrade(&request), Arc::clone(&asked));
        let endless = move || async move {
            let _request = request;
            asks.notify_one();
            std::future::pending::<()>().await;
        };
        let router = Router::new().route("/", axum::routing::get(endless));
        let patience = Patience { finish: Duration::from_millis(100), ..PATIENCE };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, patience, Counted::Everybody, stop.clone()));
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        asked.notified().await;
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(30), serving).await.expect("the listener runs").unwrap();
        assert_eq!(held.strong_count(), 0, "the request still runs");
    }

    #[tokio::test]
    async fn the_memory_of_a_short_answer_is_freed_before_it_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let held = Arc::new(());
        let is_held = Arc::downgrade(&held);
        let answer = move || async move { Response::new(Body::new(Held::new("hello".into(), held))) };
        let router = Router::new().route("/", axum::routing::get(answer));
        tokio::spawn(serve(listener, router, PATIENCE, Counted::Everybody, CancellationToken::new()));
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0]).await.unwrap() > 0);
        // The router holds one reference itself.
        assert_eq!(is_held.strong_count(), 1, "it is still held");
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
