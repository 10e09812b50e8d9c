//! How large a request may be, and how long its answer may take.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

use super::answer;
use crate::audit::{Outcome, Trail};

/// The largest body of a request. A body without a declared length is held to it while it is read.
pub const MAXIMUM_BODY_BYTES: usize = 1024 * 1024;

/// From the request's headers to its answer, with everything that Entra and Graph take.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Refuses what declares itself too large, and gives up on what takes too long.
pub(super) async fn layer(Extension(trail): Extension<Arc<Trail>>, request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > MAXIMUM_BODY_BYTES as u64 {
        return too_large(&trail);
    }
    match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => answer::problem(
            StatusCode::GATEWAY_TIMEOUT,
            &format!("no answer within {} s; try again later", TIME_LIMIT.as_secs()),
        ),
    }
}

/// The answer to a body above [`MAXIMUM_BODY_BYTES`].
pub(super) fn too_large(trail: &Trail) -> Response {
    trail.decided(Outcome::Refused("body_too_large"));
    answer::problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB; send less in one message")
}
