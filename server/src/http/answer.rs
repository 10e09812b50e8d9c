//! Refusals as HTTP: a JSON-RPC error where the request's id is known, else a small JSON document.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::audit::{Outcome, Trail};
use crate::authorize::json_rpc::ErrorValue;

/// The answer of a stage that lets a request no further.
pub(super) struct Refusal {
    /// The outcome for the audit log; none where nothing was judged yet, or the trail has it already.
    outcome: Option<Outcome>,
    /// The answer, boxed since every stage may return it.
    response: Box<Response>,
}

impl Refusal {
    /// A refusal for this stable reason.
    pub(super) fn new(reason: &'static str, response: Response) -> Self {
        Self { outcome: Some(Outcome::Refused(reason)), response: Box::new(response) }
    }

    /// An answer alone: nothing is judged yet, or the trail has the outcome already.
    pub(super) fn answer_only(response: Response) -> Self {
        Self { outcome: None, response: Box::new(response) }
    }

    /// The answer, once the trail has the outcome.
    pub(super) fn recorded(self, trail: &Trail) -> Response {
        if let Some(outcome) = self.outcome {
            trail.decided(outcome);
        }
        *self.response
    }
}

/// A JSON-RPC error with an HTTP status. `id` is null where none could be read.
pub(super) fn json_rpc_error(status: StatusCode, id: &Value, error: &ErrorValue) -> Response {
    (status, Json(error.answer(id))).into_response()
}

/// A refusal made before the message was read.
pub(super) fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}

/// A refusal for a reason that passes by itself: 503, to be tried again after half a minute.
pub(super) fn try_later(message: &str) -> Response {
    later(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// The same with another status.
pub(super) fn later(status: StatusCode, message: &str) -> Response {
    let mut response = problem(status, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
    response
}
