//! A request id of our own, a span for the logs, and the audit trail.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

use super::{Gate, answer};

/// Time for which a request waits for room in the queue of audit lines.
const PATIENCE: Duration = Duration::from_secs(30);

/// Names a request in the answer and in the audit log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Begins the trail of a request and answers its id as `x-request-id`.
pub(super) async fn layer(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    // Never the client's: ids in the audit log are unique and cannot be chosen.
    let id = Uuid::new_v4().to_string();
    let Some(recording) = gate.audit.begin(id.clone(), PATIENCE).await else {
        return answer::try_later(
            "audit lines are written too slowly, and what cannot be recorded is not done; try again later",
        );
    };
    request.extensions_mut().insert(recording.trail());
    let span = tracing::info_span!("request", request_id = id);
    let mut response = next.run(request).instrument(span).await;
    recording.answered(response.status().as_u16());
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}
