//! Limits of a request: the size of its body and the time until its answer.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;

use super::answer;

/// Largest request body, in bytes. Bodies are read only after the token is verified. Any caller with a token may send
/// bodies on all connections at once, so they share the pod's memory.
pub(super) const MAXIMUM_BODY_BYTES: usize = 128 * 1024;

/// Longest time from the request's headers to the answer's headers, including Entra and Graph. The time of sending
/// the body does not count. A stream may last longer; it ends with its connection, at the stop, or when the client
/// reads nothing for a while ([`Patience`](super::listener::Patience)).
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Answers 504 if the answer takes too long, and cancels everything behind it.
pub(super) async fn in_time(answer: impl Future<Output = Response>) -> Response {
    tokio::time::timeout(TIME_LIMIT, answer).await.unwrap_or_else(|_| {
        let seconds = TIME_LIMIT.as_secs();
        answer::problem(StatusCode::GATEWAY_TIMEOUT, &format!("no answer within {seconds} s; try again later"))
    })
}
