//! The paths of the public port: the MCP endpoint, its metadata documents, and other routes.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use hyper::body::Incoming;
use mcp_entra_policy::ServerConfiguration;
use tower::{Service, ServiceExt};

use super::{Gate, answer, answer_request, metadata};

/// Path suffixes that clients of the transport of 2024-11-05 request.
const OLD_TRANSPORT: [&str; 3] = ["sse", "message", "messages"];

/// The MCP endpoint behind its stages, with or without a trailing slash, together with the public metadata and these
/// routes.
#[derive(Clone)]
pub struct Endpoint(Arc<Routes>);

struct Routes {
    gate: Arc<Gate>,
    path: String,
    others: Router,
}

impl Endpoint {
    /// Returns the endpoint of this gate.
    pub fn new(gate: Arc<Gate>, others: Router) -> Self {
        let path = gate.configuration.path.trim_end_matches('/').to_owned();
        let documents = metadata::router(&gate.configuration, &gate.authorization_server);
        let others = with_nothing_elsewhere(others.merge(documents), &gate.configuration, &path);
        Self(Arc::new(Routes { gate, path, others }))
    }
}

/// The endpoint does not use a router, which would cost more time than some answers.
impl Service<hyper::Request<Incoming>> for Endpoint {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: hyper::Request<Incoming>) -> Self::Future {
        let routes = Arc::clone(&self.0);
        Box::pin(async move {
            let asked = request.uri().path();
            match asked.strip_suffix('/').unwrap_or(asked) == routes.path {
                true => Ok(answer_request(&routes.gate, request.map(Body::new)).await),
                false => routes.others.clone().oneshot(request).await,
            }
        })
    }
}

/// Returns these routes. Every other path answers with the address of the endpoint.
fn with_nothing_elsewhere(router: Router, configuration: &ServerConfiguration, path: &str) -> Router {
    let url = configuration.public_url.as_ref().unwrap_or(&configuration.path);
    let nothing = format!("there is nothing here; the MCP endpoint is {url}");
    let old_transport = format!("the HTTP+SSE transport of 2024-11-05 is not served; the MCP endpoint is {url}");
    let old = OLD_TRANSPORT.map(|end| format!("{path}/{end}"));
    router.fallback(move |uri: Uri| async move {
        let is_old = old.iter().any(|old| uri.path() == old);
        answer::problem(StatusCode::NOT_FOUND, if is_old { &old_transport } else { &nothing })
    })
}
