//! The request id, the log span and the audit recording of a request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use futures::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use super::answer;
use super::held::Held;
use crate::audit::{AuditLog, Trail};

/// Longest wait of a request for room in the queue of audit lines.
const PATIENCE: Duration = Duration::from_secs(30);

const PANIC: &str = "the request ended in a panic; report this defect to the developers of this server";

/// The header with the request id, which the audit log repeats.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers a request with recording, and with its id as `x-request-id`. A panic becomes an answer, too. The recording
/// ends with the body of the answer, or when the client hangs up.
pub(crate) async fn stage<F>(
    audit: &Arc<AuditLog>,
    request: Request,
    answer: impl FnOnce(Request, Arc<Trail>) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    // Never the client's id: ids in the audit log are unique and cannot be chosen.
    let id = Uuid::new_v4().to_string();
    let value = HeaderValue::from_str(&id);
    let span = tracing::info_span!("request", request_id = id);
    let recorded = async {
        let Some(mut recording) = audit.begin(id, PATIENCE).await else {
            return answer::try_later(
                "the audit log has no room, so the request cannot be recorded and is refused; try again later",
            );
        };
        let answering = AssertUnwindSafe(answer(request, recording.trail())).catch_unwind();
        let response = answering.await.unwrap_or_else(|_| {
            tracing::error!("{PANIC}");
            answer::problem(StatusCode::INTERNAL_SERVER_ERROR, PANIC)
        });
        recording.answered(response.status().as_u16());
        response.map(|body| Body::new(Held::new(Body::new(body), recording)))
    };
    let mut response = recorded.instrument(span).await;
    if let Ok(value) = value {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use axum::body::Bytes;
    use axum::http::StatusCode;
    use axum::response::IntoResponse;
    use futures::channel::mpsc::{UnboundedSender, unbounded};
    use http_body_util::BodyExt;
    use mcp_entra_policy::ServerStatus;
    use serde_json::{Value, json};

    use super::*;
    use crate::audit::Outcome;
    use crate::http::Gate;
    use crate::http::fixture::{self, Lines, OfferAway};
    use crate::telemetry::Metrics;

    const SOON: Duration = Duration::from_secs(30);

    struct Test {
        gate: Gate,
        metrics: Arc<Metrics>,
        lines: Lines,
    }

    impl Test {
        fn new() -> Self {
            let (metrics, lines) = (Arc::<Metrics>::default(), Lines::default());
            let gate = fixture::gate(Arc::new(OfferAway), Arc::clone(&metrics), lines.clone());
            Self { gate, metrics, lines }
        }

        /// Returns the answer to a judged request, with this body.
        async fn answer(&self, body: impl Fn() -> Body) -> Response {
            let answer = |_, trail: Arc<Trail>| {
                trail.decided(Outcome::Refused("expired"));
                let body = body();
                async { (StatusCode::IM_A_TEAPOT, body).into_response() }
            };
            stage(&self.gate.audit, Request::new(Body::empty()), answer).await
        }

        /// True if the metrics count this number of requests for this reason.
        fn counts(&self, reason: &str, number: u32) -> bool {
            let status: ServerStatus = serde_json::from_value(json!({
                "version": "", "policy": {}, "federation": {}, "keys": { "count": 0 },
            }))
            .unwrap();
            let metrics = self.metrics.encode(&status).unwrap();
            let sample = format!(
                "mcp_entra_server_requests_total{{method=\"\",decision=\"refused\",reason=\"{reason}\"}} {number}"
            );
            metrics.lines().any(|line| line == sample)
        }

        /// Returns the status in the only line of the audit log.
        async fn recorded_status(self) -> Value {
            self.gate.audit.end(SOON).await.unwrap();
            self.lines.only()["status"].clone()
        }
    }

    /// Returns a body that streams the sent items and ends with the sender.
    fn stream() -> (UnboundedSender<Result<Bytes, Infallible>>, Body) {
        let (sender, receiver) = unbounded();
        (sender, Body::from_stream(receiver))
    }

    #[tokio::test]
    async fn a_request_for_which_the_audit_log_has_no_room_is_refused_with_its_id_and_counted() {
        let test = Test::new();
        // An ended log accepts no lines, like a full one, but without a wait.
        test.gate.audit.end(SOON).await.unwrap();
        for _ in 0..3 {
            let answer = test.answer(|| Body::from("let in")).await;
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.headers().contains_key(REQUEST_ID), "{answer:?}");
        }
        assert!(test.counts("audit_log_full", 3));
    }

    #[tokio::test]
    async fn the_line_of_an_answer_that_is_streamed_is_written_at_its_end() {
        let test = Test::new();
        let (sender, body) = stream();
        let body = Mutex::new(Some(body));
        let mut answer = test.answer(|| body.lock().unwrap().take().unwrap()).await;
        for part in ["a", "b"] {
            sender.unbounded_send(Ok(Bytes::from(part))).unwrap();
            assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), part);
            assert!(!test.counts("expired", 1), "recorded before its end");
        }
        drop(sender);
        assert!(answer.body_mut().frame().await.is_none());
        assert!(test.counts("expired", 1), "not recorded at its end");
        assert_eq!(test.recorded_status().await, 418);
    }

    #[tokio::test]
    async fn the_line_of_an_answer_that_is_dropped_half_way_is_written_with_its_status() {
        let test = Test::new();
        let (sender, body) = stream();
        let body = Mutex::new(Some(body));
        let mut answer = test.answer(|| body.lock().unwrap().take().unwrap()).await;
        sender.unbounded_send(Ok(Bytes::from("a"))).unwrap();
        assert!(answer.body_mut().frame().await.is_some());
        drop(answer);
        assert!(test.counts("expired", 1));
        assert_eq!(test.recorded_status().await, 418);
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_recorded() {
        let test = Test::new();
        let answer = |_, trail: Arc<Trail>| async move {
            trail.decided(Outcome::Refused("expired"));
            panic!("a defect")
        };
        let answer = stage(&test.gate.audit, Request::new(Body::empty()), answer).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(answer.headers().contains_key(REQUEST_ID), "{answer:?}");
        drop(answer);
        assert_eq!(test.recorded_status().await, 500);
    }
}
