//! CORS headers, which let pages of other origins read answers. [`origin`](super::origin) blocks other pages; these
//! headers inform browsers.

use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use super::Gate;
use super::answer::Refusal;
use super::trace::REQUEST_ID;

/// Time for which a browser may cache a preflight answer.
const MAXIMUM_AGE: Duration = Duration::from_secs(3600);

/// Allows any page to use this method, for public documents and endpoints without cookies.
pub(crate) fn public(method: Method) -> CorsLayer {
    CorsLayer::new().allow_origin(Any).allow_methods([method]).allow_headers(Any).max_age(MAXIMUM_AGE)
}

/// Allows pages of these origins to use the MCP endpoint; none if there are no origins. All request headers are
/// allowed, because they depend on the tool (`Mcp-Param-*`). Pages can read the challenge, for sign-in, and the
/// refusal of GET and DELETE, which clients of earlier revisions try.
pub fn endpoint(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    let exposed = [header::WWW_AUTHENTICATE, header::RETRY_AFTER, REQUEST_ID];
    let cors = CorsLayer::new()
        .allow_methods([Method::POST, Method::GET, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(MAXIMUM_AGE);
    (!origins.is_empty()).then(|| cors.allow_origin(AllowOrigin::list(origins)))
}

/// Returns the CORS headers of the later answer to this request. Answers a preflight request directly.
pub(super) async fn stage(gate: &Gate, parts: &Parts) -> Result<HeaderMap, Refusal> {
    let Some(cors) = &gate.cors else { return Ok(HeaderMap::new()) };
    let mut asked = Request::new(());
    asked.method_mut().clone_from(&parts.method);
    asked.headers_mut().clone_from(&parts.headers);
    let empty = service_fn(|_| ready(Ok::<_, Infallible>(Response::new(()))));
    let Ok(told) = cors.layer(empty).oneshot(asked).await;
    match parts.method {
        Method::OPTIONS => Err(Refusal::answer_only(told.map(|()| Body::empty()))),
        _ => Ok(told.into_parts().0.headers),
    }
}
