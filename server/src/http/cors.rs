//! The headers that let pages of other origins read answers (CORS). [`origin`](super::origin) keeps other pages out; here
//! browsers are told so.

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

/// Time for which a browser need not ask again.
const MAXIMUM_AGE: Duration = Duration::from_secs(3600);

/// Documents that everybody may read, or endpoints that take no cookie, from any page, by this method.
pub(crate) fn public(method: Method) -> CorsLayer {
    CorsLayer::new().allow_origin(Any).allow_methods([method]).allow_headers(Any).max_age(MAXIMUM_AGE)
}

/// The MCP endpoint, from pages of these origins; absent where there are none. Which headers a call has depends on the
/// tool (`Mcp-Param-*`). Pages see the challenge, which they need for a sign-in, and that GET and DELETE are refused,
/// which clients of earlier revisions try.
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

/// The headers that every further answer to this request has. A browser that asks before a page may call (a preflight) is
/// answered here.
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
