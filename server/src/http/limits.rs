//! Limits of a request: the size of its body, and the time until its answer.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;

use super::answer;

/// The largest body of a request, in bytes. Held to where the body is read, which is after the token is verified. Any
/// caller with a token may send bodies, over every connection at once, and they share the pod's memory.
pub(super) const MAXIMUM_BODY_BYTES: usize = 128 * 1024;

/// Time from the request's headers to those of its answer, with everything that Entra and Graph take. It does not count while the
/// body of an answer is sent: a stream may last longer than this, and ends with its connection, at the stop, or when the
/// client takes nothing of it for a while ([`Patience`](super::listener::Patience)).
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Gives up on an answer that takes too long, and cancels everything that it was waiting for.
pub(super) async fn in_time(answer: impl Future<Output = Response>) -> Response {
    tokio::time::timeout(TIME_LIMIT, answer).await.unwrap_or_else(|_| {
        let seconds = TIME_LIMIT.as_secs();
        answer::problem(StatusCode::GATEWAY_TIMEOUT, &format!("no answer within {seconds} s; try again later"))
    })
}
