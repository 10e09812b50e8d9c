//! Backend over HTTP whose answers a test writes, byte by byte.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::over_http;
use super::stage::Received;
use crate::harness::{Setup, Site};

/// A backend. Dropping this ends it.
pub(super) struct Puppet {
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    gets: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Puppet {
    /// Starts a backend that answers with the result of this function. GET is not allowed.
    pub(super) async fn start(answers: impl Fn(&Received) -> Response<String> + Clone + Send + Sync + 'static) -> Self {
        let (received, gets) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (kept, counted) = (Arc::clone(&received), Arc::clone(&gets));
        let take = async move |headers: HeaderMap, body: String| {
            let pairs = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            let received = Received::new(&body, pairs);
            kept.lock().unwrap().push(received.clone());
            match received.message["id"].is_null() {
                true => status(202),
                false => answers(&received),
            }
        };
        let refuse = async move || {
            counted.fetch_add(1, Ordering::SeqCst);
            StatusCode::METHOD_NOT_ALLOWED
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().route("/mcp", post(take).get(refuse));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }).abort_handle();
        Self { port, received, gets, task }
    }

    /// Starts a server in front of this backend. Alice may use these tools, and all prompts and resources.
    pub(super) async fn site(&self, tools: &[&str]) -> Site {
        self.site_with(tools, |_| ()).await
    }

    /// Starts a server in front of this backend, with this change of the setup.
    pub(super) async fn site_with(&self, tools: &[&str], change: impl FnOnce(&mut Setup)) -> Site {
        let mut setup = super::setup(over_http(self.port, "/mcp"), None, tools);
        change(&mut setup);
        setup.start().await
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Returns the number of GET requests.
    pub(super) fn gets(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns an answer with these members besides `jsonrpc` and `id`.
pub(super) fn told(received: &Received, members: &str) -> Response<String> {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{},{members}}}"#, received.message["id"]);
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

/// Returns an answer without a message.
pub(super) fn status(status: u16) -> Response<String> {
    Response::builder().status(status).body(String::new()).unwrap()
}

/// Returns the description of a backend of 2026-07-28 with all capabilities. Other methods get the error of a missing
/// method.
pub(super) fn described(received: &Received) -> Response<String> {
    if received.method() != "server/discover" {
        return told(received, r#""error":{"code":-32601,"message":"Method not found"}"#);
    }
    let capabilities = json!({ "tools": {}, "prompts": {}, "resources": {}, "completions": {}, "logging": {} });
    let result = json!({ "supportedVersions": ["2026-07-28"], "capabilities": capabilities });
    told(received, &format!(r#""result":{result}"#))
}
