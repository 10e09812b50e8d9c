//! API gateway that follows the page exactly: it publishes the operations, passes the headers and sets the policy's
//! headers, and nothing else. If the page allows it, it behaves as other gateways do, too.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{self, Body};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use reqwest::Client;
use tokio::net::TcpListener;

use super::page::Page;
use crate::harness::{HOST, PATIENCE};

/// Header in which a test sets the address of the client.
pub(crate) const FROM: &str = "x-test-from";
/// Default address of a client.
const SOMEWHERE: &str = "203.0.113.7";
/// The name of the backend, which the server does not know.
const BACKEND: &str = "graph.internal.example";
/// Host that a client forges.
const EVIL: &str = "evil.example";
/// Maximum size of a body.
const LIMIT: usize = 1024 * 1024;

/// A running gateway.
#[derive(Clone)]
pub(crate) struct Gateway(Arc<Inner>);

struct Inner {
    page: Page,
    sets_host: bool,
    /// Headers that every client sends in this test.
    forged: bool,
    seen: Mutex<Seen>,
}

/// Names of the headers of answers, in lower case.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Names of passed headers.
    pub(crate) passed: BTreeSet<String>,
    /// Names of removed headers.
    pub(crate) dropped: BTreeSet<String>,
}

/// A gateway and the address of its backend.
#[derive(Clone)]
struct Way {
    gateway: Gateway,
    backend: String,
    http: Client,
}

impl Gateway {
    /// A gateway as the page describes it.
    pub(crate) fn new() -> Self {
        Self::with(true, false)
    }

    /// A gateway without the policy's host.
    pub(crate) fn without_host() -> Self {
        Self::with(false, false)
    }

    /// A gateway whose clients all forge their address and host.
    pub(crate) fn with_forgers() -> Self {
        Self::with(true, true)
    }

    fn with(sets_host: bool, forged: bool) -> Self {
        Self(Arc::new(Inner { page: Page::read(), sets_host, forged, seen: Mutex::default() }))
    }

    /// Starts it in front of this server, on a free port. It ends with the test.
    pub(crate) async fn start(&self, server: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let http = Client::builder()
            .no_proxy()
            .http1_only()
            .resolve(BACKEND, server)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .unwrap();
        let backend = format!("http://{BACKEND}:{}", server.port());
        let router = Router::new().fallback(pass).with_state(Way { gateway: self.clone(), backend, http });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    /// The headers of answers so far.
    pub(crate) fn seen(&self) -> Seen {
        self.0.seen.lock().unwrap().clone()
    }

    /// Returns the headers for the server.
    fn outbound(&self, client: &HeaderMap) -> HeaderMap {
        let Inner { page, sets_host, forged, .. } = &*self.0;
        let passing = client.iter().filter(|(name, _)| page.passes_on(name));
        let mut headers: HeaderMap = passing.map(|(name, value)| (name.clone(), value.clone())).collect();
        let from = client.get(FROM).map_or(SOMEWHERE, |from| from.to_str().unwrap());
        let forwarded: Vec<_> = client.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap()).collect();
        let written = if *forged { "192.0.2.66" } else { "" };
        let chain = forwarded.into_iter().chain([written, from]).filter(|hop| !hop.is_empty());
        let chain = chain.collect::<Vec<_>>().join(", ");
        let (host, scheme) = if *forged { (EVIL, "http") } else { (BACKEND, "https") };
        let forwarded = format!("for=192.0.2.66;host={host};proto={scheme}");
        for (name, value) in [
            ("x-forwarded-for", chain.as_str()),
            ("x-forwarded-host", host),
            ("x-forwarded-proto", scheme),
            ("x-forwarded-port", "444"),
            ("x-forwarded-prefix", "/elsewhere"),
            ("x-original-host", host),
            ("x-original-url", "/mcp/sessions"),
            ("forwarded", &forwarded),
            ("via", "1.1 gateway"),
            ("ocp-apim-subscription-key", "0123456789abcdef"),
            ("x-request-id", "of-the-gateway"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        if *sets_host {
            // The page's example is the host of these tests.
            assert_eq!(page.sets("Host"), Some(HOST));
            headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        }
        headers
    }

    /// Returns the headers for the client.
    fn inbound(&self, server: &HeaderMap) -> HeaderMap {
        let mut seen = self.0.seen.lock().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in server {
            if self.0.page.passes_back(name) {
                seen.passed.insert(name.to_string());
                headers.append(name.clone(), value.clone());
            } else {
                seen.dropped.insert(name.to_string());
            }
        }
        headers.insert(header::VIA, HeaderValue::from_static("1.1 gateway"));
        headers.insert("request-context", HeaderValue::from_static("appId=cid-v1:0"));
        headers
    }
}

/// Forwards one request to the server. Both bodies are first read to their ends.
async fn pass(State(way): State<Way>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Way { gateway, backend, http } = way;
    if !gateway.0.page.publishes(&parts.method, parts.uri.path()) {
        let text = r#"{"statusCode": 404, "message": "Resource not found"}"#;
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    let body = body::to_bytes(body, LIMIT).await.unwrap();
    let url = format!("{backend}{}", parts.uri.path_and_query().unwrap());
    let request = http.request(parts.method, url).headers(gateway.outbound(&parts.headers)).body(body);
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), gateway.inbound(answer.headers()));
    let body = answer.bytes().await.unwrap();
    let text = format!("{headers:?} {}", String::from_utf8_lossy(&body));
    for foreign in [EVIL, BACKEND, "/elsewhere", "of-the-gateway"] {
        assert!(!text.contains(foreign), "{foreign} is in {text}");
    }
    let mut response = Response::new(Body::from(body));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}
