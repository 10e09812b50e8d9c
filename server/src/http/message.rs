//! The message: the body of a POST, read up to a limit and parsed once.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method as HttpMethod, StatusCode, header};
use axum::response::IntoResponse;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mediatype::{MediaType, names};
use serde_json::Value;

use super::answer::{self, Refusal};
use super::{Gate, limits, revision};
use crate::audit::Trail;
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::authorize::{Fault, Message, Method};

/// Longest body that is read and discarded, in bytes.
const PASSED_OVER_BYTES: usize = 64 * 1024;
/// Longest time for discarding a body.
const PASSED_OVER_TIME: Duration = Duration::from_millis(200);

/// Reads and parses the message of a POST.
pub(super) async fn stage(gate: &Gate, trail: &Trail, parts: &Parts, body: Body) -> Result<Message, Refusal> {
    if parts.method != HttpMethod::POST {
        let text = "POST a JSON-RPC message; this server has no sessions to DELETE and no stream to GET";
        let mut response = answer::problem(StatusCode::METHOD_NOT_ALLOWED, text);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return Err(Refusal::new("method_not_allowed", response));
    }
    if !is_json(&parts.headers) {
        let text = "the body must be JSON; send Content-Type: application/json";
        let response = answer::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        return Err(Refusal::new("content_type_not_accepted", response));
    }
    let body = read(body).await?;
    let message = Message::parse(&body).and_then(|message| message.served_by(&gate.offer.about()));
    let message = message.map_err(|malformed| {
        if let Some(refusal) = revision::of_malformed(&malformed, parts) {
            return refusal;
        }
        let response = answer::json_rpc_error(status(malformed.fault), &malformed.id, &malformed.error());
        Refusal::new(malformed.reason(), response)
    })?;
    trail.understood(message.method.name(), message.method.target());
    if message.method == Method::UnknownNotification {
        return Err(Refusal::new("unknown_notification", StatusCode::ACCEPTED.into_response()));
    }
    Ok(message)
}

/// True if the body is declared as JSON. Pages cannot send such a body to other origins without permission.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| MediaType::parse(value).ok());
    media_type.is_some_and(|found| found.essence() == MediaType::new(names::APPLICATION, names::JSON))
}

/// Reads and discards an unused body, if it arrives at once. Otherwise the server would close the connection after
/// the answer, and the client's next request on it would be lost.
pub(super) async fn pass_over(body: Body) {
    let body = Limited::new(body, PASSED_OVER_BYTES).collect();
    _ = tokio::time::timeout(PASSED_OVER_TIME, body).await;
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    let body = Limited::new(body, limits::MAXIMUM_BODY_BYTES).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| unread(&*error))
}

fn unread(error: &(dyn Error + Send + Sync + 'static)) -> Refusal {
    let (reason, status, error) = if error.is::<LengthLimitError>() {
        let limit = limits::MAXIMUM_BODY_BYTES / 1024;
        let text = format!("the body is larger than {limit} KiB; send less in one message");
        ("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, ErrorValue::new(code::INVALID_REQUEST, text))
    } else {
        let error = ErrorValue::new(code::PARSE_ERROR, "the body ended early; send it again");
        ("body_incomplete", StatusCode::BAD_REQUEST, error)
    };
    Refusal::new(reason, answer::json_rpc_error(status, &Value::Null, &error))
}

/// Returns the status of a refusal. It is 404 for an unknown method since 2026-07-28. Clients of earlier revisions
/// take a 404 for the end of their session or of the server, so they get the JSON-RPC error in a 200.
fn status(fault: Fault) -> StatusCode {
    match fault {
        Fault::UnknownMethod { names_revision: true } => StatusCode::NOT_FOUND,
        Fault::UnknownMethod { names_revision: false } => StatusCode::OK,
        Fault::Json | Fault::Batch | Fault::Message | Fault::Params => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_refusal_is_the_one_that_clients_of_its_revision_look_for() {
        let revision = "io.modelcontextprotocol/protocolVersion";
        let modern =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"_meta":{{"{revision}":"2026-07-28"}}}}}}"#);
        for (body, expected) in [
            ("{", 400),
            ("[]", 400),
            (r#""ping""#, 400),
            (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#, 400),
            (r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#, 200),
            (modern.as_str(), 404),
        ] {
            let malformed = Message::parse(body.as_bytes()).unwrap_err();
            assert_eq!(status(malformed.fault), expected, "{body}");
        }
    }
}
