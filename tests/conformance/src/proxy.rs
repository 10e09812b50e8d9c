//! Proxy in front of the server: it adds the bearer token, which the suite does not have, and changes nothing else.

use std::net::SocketAddr;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

/// Connection to the server.
#[derive(Clone)]
struct Way {
    client: Client<HttpConnector, Body>,
    server: Authority,
    authorization: HeaderValue,
}

/// Forwards requests to the server with this bearer token, until the runtime ends. Bodies stream in both directions;
/// Host and Origin are unchanged.
///
/// # Errors
/// If the token is not valid in a header.
pub(crate) fn spawn(listener: TcpListener, server: SocketAddr, token: &str) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))?;
    authorization.set_sensitive(true);
    let server = server.to_string().parse().context("an address is an authority")?;
    let way = Way { client: Client::builder(TokioExecutor::new()).build(connector), server, authorization };
    let router = Router::new().fallback(pass_on).with_state(way);
    // Parts of an event stream must not wait for each other.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

async fn pass_on(State(way): State<Way>, mut request: Request) -> Response {
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(way.server);
    let Ok(uri) = Uri::from_parts(parts) else { return StatusCode::BAD_REQUEST.into_response() };
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::AUTHORIZATION, way.authorization);
    match way.client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("the server does not answer: {error}")).into_response(),
    }
}
