//! How refusals look: a JSON-RPC error where the request's id is known, else a small JSON document.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

/// More than a refusal in plain text is long; it can quote a header.
const MAXIMUM_TEXT_BYTES: usize = 64 * 1024;

/// Codes of JSON-RPC errors.
pub mod code {
    /// The body is not JSON.
    pub const PARSE_ERROR: i32 = -32700;
    /// The body is not one JSON-RPC message.
    pub const INVALID_REQUEST: i32 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The parameters do not fit the method.
    pub const INVALID_PARAMS: i32 = -32602;
    /// The caller may not do this. JSON-RPC and MCP keep -32768 to -32000 for themselves, so that this code lies outside.
    pub const FORBIDDEN: i32 = 403;
}

/// A JSON-RPC error with an HTTP status. `id` is null where none could be read.
pub fn json_rpc_error(status: StatusCode, id: &Value, code: i32, message: &str, data: Option<Value>) -> Response {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(data), Some(error)) = (data, error.as_object_mut()) {
        error.insert("data".to_owned(), data);
    }
    (status, Json(json!({ "jsonrpc": "2.0", "id": id, "error": error }))).into_response()
}

/// The result of a tool that went wrong, for a model or a person to act on: what a client shows that hides HTTP statuses.
pub fn tool_error(id: &Value, text: &str) -> Response {
    let result = json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }], "isError": true });
    Json(json!({ "jsonrpc": "2.0", "id": id, "result": result })).into_response()
}

/// A refusal made before the message was read.
pub fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}

/// A refusal for a reason that passes by itself: 503, to be tried again after half a minute.
pub fn try_later(message: &str) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
    response
}

/// The answer, as JSON where it is a refusal in plain text: rmcp refuses some headers so.
pub async fn in_json(answer: Response) -> Response {
    let status = answer.status();
    if !(status.is_client_error() || status.is_server_error()) || answer.headers().contains_key(CONTENT_TYPE) {
        return answer;
    }
    let text = Limited::new(answer.into_body(), MAXIMUM_TEXT_BYTES).collect().await;
    let text = text.map(|text| String::from_utf8_lossy(&text.to_bytes()).into_owned()).unwrap_or_default();
    problem(status, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_json_rpc_does_not_define_lies_outside_its_range() {
        const DEFINED: [i32; 4] = [-32700, -32600, -32601, -32602];
        let codes =
            [code::PARSE_ERROR, code::INVALID_REQUEST, code::METHOD_NOT_FOUND, code::INVALID_PARAMS, code::FORBIDDEN];
        for code in codes {
            assert!(DEFINED.contains(&code) || !(-32768..=-32000).contains(&code), "{code}");
        }
    }
}
