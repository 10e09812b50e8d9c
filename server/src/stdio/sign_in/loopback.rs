//! The local listener to which a browser returns (RFC 8252 section 7.3), for one sign-in.
//!
//! The browser starts at a one-time address of this listener, which redirects to Entra. So Entra's address with its
//! parameters appears neither in a process list nor in an answer to a client. Entra's page returns the browser with a
//! form.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::page::Page;
use super::peer_user;
use crate::entra::{AuthorizationRequest, random};
use crate::http::client_address::Peer;
use crate::http::listener::{self, Counted, PATIENCE};

/// Longest form that is read, in bytes. Entra's codes have about a thousand.
const MAXIMUM_FORM: usize = 64 * 1024;
/// Longest wait for the last page to reach the browser.
const LAST_PAGE: Duration = Duration::from_secs(2);
/// Most valid one-time addresses. The oldest expires first.
const MAXIMUM_STARTS: usize = 16;
/// Attempts to find a port that is free on both loopback addresses.
const ATTEMPTS: usize = 16;

/// A listener.
pub(super) struct Loopback {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// The served ports.
    serving: TaskTracker,
}

struct Shared {
    port: u16,
    request: AuthorizationRequest,
    /// The secrets of the one-time addresses.
    starts: Mutex<VecDeque<SecretString>>,
    returns: mpsc::Sender<Return>,
}

/// A browser that has returned and waits for its page.
pub(super) struct Return {
    pub(super) brought: Brought,
    pub(super) page: oneshot::Sender<Page>,
}

/// The result from a browser.
pub(super) enum Brought {
    /// An authorization code.
    Code(SecretString),
    /// Entra's refusal.
    Refusal { error: String, description: String },
}

/// The ports of a sign-in, bound but not yet served.
pub(super) struct Ports {
    port: u16,
    listeners: Vec<TcpListener>,
}

#[derive(Deserialize)]
struct ReturnForm {
    state: Option<String>,
    code: Option<SecretString>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Ports {
    /// Binds a free port, on both loopback addresses if the machine has both, because a browser may try either.
    pub(super) async fn take() -> std::io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let first = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
            let port = first.local_addr()?.port();
            match TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
                Ok(second) => return Ok(Self { port, listeners: vec![first, second] }),
                // The other owner of the port would receive what a browser sends.
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(_) => return Ok(Self { port, listeners: vec![first] }),
            }
        }
        Err(std::io::ErrorKind::AddrInUse.into())
    }

    /// Returns the redirect URI for Entra.
    pub(super) fn redirect_uri(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// Serves the sign-in of this request. Returning browsers go to the receiver.
    pub(super) fn serve(self, request: AuthorizationRequest) -> (Loopback, mpsc::Receiver<Return>) {
        let (returns, returned) = mpsc::channel(1);
        let shared = Arc::new(Shared { port: self.port, request, starts: Mutex::default(), returns });
        let (stop, serving) = (CancellationToken::new(), TaskTracker::new());
        let router = router(Arc::clone(&shared));
        for listener in self.listeners {
            serving.spawn(listener::serve(listener, router.clone(), PATIENCE, Counted::Everybody, stop.clone()));
        }
        serving.close();
        (Loopback { shared, stop, serving }, returned)
    }
}

impl Loopback {
    /// Returns a new one-time address at which the person starts.
    pub(super) fn start_address(&self) -> String {
        let secret = random();
        let address = format!("http://localhost:{}/start/{}", self.shared.port, secret.expose_secret());
        let mut starts = self.shared.starts();
        if starts.len() == MAXIMUM_STARTS {
            starts.pop_front();
        }
        starts.push_back(secret);
        address
    }

    /// Closes the listener after the last answer.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }

    /// Waits for the last answer, for a short time.
    pub(super) async fn ended(&self) {
        _ = timeout(LAST_PAGE, self.serving.wait()).await;
    }

    /// Returns the request of the sign-in.
    pub(super) fn request(&self) -> &AuthorizationRequest {
        &self.shared.request
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn starts(&self) -> std::sync::MutexGuard<'_, VecDeque<SecretString>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses up a one-time address. Returns true if it was valid.
    fn take_start(&self, secret: &str) -> bool {
        let mut starts = self.starts();
        let found = starts.iter().position(|start| is_same(start.expose_secret(), secret));
        found.map(|index| starts.remove(index)).is_some()
    }
}

fn is_same(a: &str, b: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", post(returned))
        .route("/start/{secret}", get(start))
        .fallback(|| async { Page::stray(StatusCode::NOT_FOUND) })
        .method_not_allowed_fallback(|| async { Page::stray(StatusCode::METHOD_NOT_ALLOWED) })
        .layer(DefaultBodyLimit::max(MAXIMUM_FORM))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), check_origin))
        .with_state(shared)
}

/// Refuses other users of the machine, and pages of other sites whose own name resolves to this machine (DNS
/// rebinding).
async fn check_origin(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let is_ours = |headers: &HeaderMap| {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        host.to_str().is_ok_and(|host| host.eq_ignore_ascii_case(&format!("localhost:{}", shared.port)))
    };
    if !is_ours(request.headers()) {
        return Page::stray(StatusCode::MISDIRECTED_REQUEST).into_response();
    }
    let peer = request.extensions().get::<Peer>().copied();
    match peer {
        Some(Peer(peer)) if peer_user::is_own(peer, shared.port).await => next.run(request).await,
        _ => Page::stray(StatusCode::FORBIDDEN).into_response(),
    }
}

/// Redirects to Entra. A link preview with HEAD gets the same answer and uses nothing up.
async fn start(State(shared): State<Arc<Shared>>, Path(secret): Path<String>, request: Request) -> Response {
    if request.method() != axum::http::Method::GET || !shared.take_start(&secret) {
        return Page::stray(StatusCode::GONE).into_response();
    }
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::REFERRER_POLICY, "no-referrer")];
    (headers, Redirect::to(shared.request.url.as_str())).into_response()
}

/// Handles the return from Entra. A request without the correct state changes nothing, and the sign-in stays open.
async fn returned(
    State(shared): State<Arc<Shared>>,
    form: Result<Form<ReturnForm>, axum::extract::rejection::FormRejection>,
) -> Page {
    let stray = || Page::stray(StatusCode::BAD_REQUEST);
    let Ok(Form(ReturnForm { state, code, error, error_description })) = form else { return stray() };
    if !state.is_some_and(|state| shared.request.is_state(&state)) {
        return stray();
    }
    let brought = match (code, error) {
        (Some(code), None) => Brought::Code(code),
        (_, Some(error)) => Brought::Refusal { error, description: error_description.unwrap_or_default() },
        (None, None) => return stray(),
    };
    let (page, shown) = oneshot::channel();
    if shared.returns.send(Return { brought, page }).await.is_err() {
        return Page::stray(StatusCode::GONE);
    }
    shown.await.unwrap_or_else(|_| Page::stray(StatusCode::GONE))
}
