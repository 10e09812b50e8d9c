//! How large a request may be, and how long its answer may take.

use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

use super::answer;

/// The largest body of a request, in bytes. Held to where the body is read, which is after the token is verified. Any
/// caller with a token may send bodies, over every connection at once, and they share the pod's memory.
pub const MAXIMUM_BODY_BYTES: usize = 128 * 1024;

/// From the request's headers to its answer, with everything that Entra and Graph take.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Gives up on what takes too long; whatever it was waiting for is cancelled.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => answer::problem(
            StatusCode::GATEWAY_TIMEOUT,
            &format!("no answer within {} s; try again later", TIME_LIMIT.as_secs()),
        ),
    }
}
