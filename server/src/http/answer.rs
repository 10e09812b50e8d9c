//! Refusals as HTTP answers: a JSON-RPC error if the request's id is known, otherwise a small JSON document.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::audit::{Outcome, Trail};
use crate::authorize::json_rpc::ErrorValue;

/// The answer of a stage that stops a request.
pub(super) struct Refusal {
    /// The outcome for the audit log. None if nothing was judged yet, or the trail already has it.
    outcome: Option<Outcome>,
    /// The answer. Boxed, because every stage may return it.
    response: Box<Response>,
}

impl Refusal {
    /// Returns a refusal for this stable reason.
    pub(super) fn new(reason: &'static str, response: Response) -> Self {
        Self { outcome: Some(Outcome::Refused(reason)), response: Box::new(response) }
    }

    /// Returns only an answer: nothing is judged yet, or the trail already has the outcome.
    pub(super) fn answer_only(response: Response) -> Self {
        Self { outcome: None, response: Box::new(response) }
    }

    /// Records the outcome in the trail and returns the answer.
    pub(super) fn recorded(self, trail: &Trail) -> Response {
        if let Some(outcome) = self.outcome {
            trail.decided(outcome);
        }
        *self.response
    }
}

/// Returns a JSON-RPC error with an HTTP status. `id` is null if none could be read.
pub(super) fn json_rpc_error(status: StatusCode, id: &Value, error: &ErrorValue) -> Response {
    (status, Json(error.answer(id))).into_response()
}

/// Returns a refusal made before the message was read.
pub(super) fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}

/// Returns a 503 with `Retry-After` of half a minute, for a temporary condition.
pub(super) fn try_later(message: &str) -> Response {
    later(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// Same as [`try_later`] with another status.
pub(super) fn later(status: StatusCode, message: &str) -> Response {
    let mut response = problem(status, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
    response
}
