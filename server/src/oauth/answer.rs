//! Answers of the endpoints for clients (RFC 6749 section 5): JSON that must not be cached.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// A refused request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientError {
    status: StatusCode,
    error: &'static str,
    description: String,
    /// The reason for the audit log.
    pub(super) reason: &'static str,
}

impl ClientError {
    /// Returns 400 with this OAuth error, this text with the next step, and this audit reason.
    pub(super) fn new(error: &'static str, description: impl Into<String>, reason: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.into(), reason }
    }

    /// Returns 401: the client is unknown or no longer allowed, and must register again.
    pub(super) fn client() -> Self {
        let text = "this server does not know the client or no longer allows it; register again";
        Self { status: StatusCode::UNAUTHORIZED, ..Self::new("invalid_client", text, "client_not_allowed") }
    }

    /// Returns a refused registration (RFC 7591 section 3.2.2).
    pub(super) fn registration(status: StatusCode, error: &'static str, description: String) -> Self {
        Self { status, ..Self::new(error, description, "registration_refused") }
    }

    /// Returns 400: the code or refresh token is not valid.
    pub(super) fn grant(description: impl Into<String>, reason: &'static str) -> Self {
        Self::new("invalid_grant", description, reason)
    }

    /// Returns 503: the request is correct, and the client may retry it.
    pub(super) fn later(description: impl Into<String>, reason: &'static str) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, ..Self::new("temporarily_unavailable", description, reason) }
    }

    /// Returns 429: too many requests.
    pub(super) fn too_many(description: impl Into<String>) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        Self { status, ..Self::new("temporarily_unavailable", description, "address_rate_limited") }
    }
}

impl IntoResponse for ClientError {
    fn into_response(self) -> Response {
        let Self { status, error, description, .. } = self;
        let mut response = document(status, &json!({ "error": error, "error_description": ascii(&description) }));
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
        }
        response
    }
}

/// Returns a document that must not be cached.
pub(super) fn document(status: StatusCode, document: &impl Serialize) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(document)).into_response()
}

/// Replaces characters that RFC 6749 section 5.2 forbids in an `error_description`.
fn ascii(text: &str) -> String {
    let allowed = |character: &char| matches!(character, ' '..='~') && !matches!(character, '"' | '\\');
    text.chars().map(|character| if allowed(&character) { character } else { '\'' }).collect()
}

/// Returns a public document that may be cached for a while.
pub(super) fn public(document: &Value) -> Response {
    (StatusCode::OK, [(header::CACHE_CONTROL, "max-age=300")], Json(document)).into_response()
}
