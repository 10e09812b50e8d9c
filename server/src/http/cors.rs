//! Which pages may read the answers (CORS). [`origin`](super::origin) keeps the others out; here browsers are told so.

use std::time::Duration;

use axum::http::{HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use super::trace::REQUEST_ID;

/// How long a browser need not ask again.
const MAXIMUM_AGE: Duration = Duration::from_secs(3600);

/// Documents that everybody may read, from any page.
pub(super) fn public() -> CorsLayer {
    CorsLayer::new().allow_origin(Any).allow_methods([Method::GET]).allow_headers(Any).max_age(MAXIMUM_AGE)
}

/// The MCP endpoint, from pages of these origins; absent where there are none. Which headers a call has depends on the
/// tool (`Mcp-Param-*`). Pages see the challenge, which they need for a sign-in, and that GET and DELETE are refused,
/// which clients of earlier revisions try.
pub(super) fn endpoint(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    let exposed = [header::WWW_AUTHENTICATE, header::RETRY_AFTER, REQUEST_ID];
    let cors = CorsLayer::new()
        .allow_methods([Method::POST, Method::GET, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(MAXIMUM_AGE);
    (!origins.is_empty()).then(|| cors.allow_origin(AllowOrigin::list(origins)))
}
