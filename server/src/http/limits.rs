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
    within(TIME_LIMIT, answer).await
}

async fn within(limit: Duration, answer: impl Future<Output = Response>) -> Response {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs();
        answer::problem(StatusCode::GATEWAY_TIMEOUT, &format!("no answer within {seconds} s; try again later"))
    })
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::http::calls;

    #[tokio::test]
    async fn a_request_without_an_answer_in_time_is_answered_504_and_cancelled() {
        assert_eq!(TIME_LIMIT, Duration::from_secs(60));
        let (held, mut cancelled) = oneshot::channel::<()>();
        let never = async move {
            let _held = held;
            std::future::pending().await
        };
        let response = within(Duration::from_millis(20), never).await;
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("try again later"));
        assert_eq!(cancelled.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(in_time(async { StatusCode::IM_A_TEAPOT.into_response() }).await.status(), 418);
    }

    #[test]
    fn a_client_that_takes_event_streams_gets_one_before_the_time_limit() {
        assert!(calls::PATIENCE < TIME_LIMIT);
    }
}
