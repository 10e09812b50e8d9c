//! Conversion of operations into requests to a backend, and of its answers into replies.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::backend::{BackendError, Held, PeerError};
use crate::backend_identity::BackendIdentityError;
use crate::offer::{Failure, InputRequired, JsonObject, Lack, Operation, Reply, tool_error};
use crate::raw_json::{RawObject, raw};
use crate::strict_json;

/// JSON-RPC codes with the same meaning for clients of this server.
const INVALID_PARAMS: i64 = -32602;
const RESOURCE_NOT_FOUND: i64 = -32002;
const CAPABILITY_MISSING: i64 = -32021;
/// Codes that JSON-RPC and MCP reserve. Clients would take such a code of a backend for a code of this server.
const RESERVED: std::ops::RangeInclusive<i64> = -32768..=-32000;

/// Maximum length of what is kept of a result without the memory that is reserved for it, in bytes. A client repeats
/// requested input in its next request, which is limited, too.
pub(super) const LONGEST: usize = 64 * 1024;

/// Returns the method of an operation.
pub(super) fn method(operation: &Operation) -> &'static str {
    match operation {
        Operation::Tool { .. } => "tools/call",
        Operation::Prompt { .. } => "prompts/get",
        Operation::Resource { .. } => "resources/read",
    }
}

/// Returns the params of an operation. Arguments stay as the client wrote them.
pub(super) fn params(operation: &Operation) -> RawObject {
    let mut params = RawObject::default();
    match operation {
        Operation::Tool { name, arguments } | Operation::Prompt { name, arguments } => {
            params.set("name", raw(&json!(name)));
            let written = serde_json::value::RawValue::from_string(arguments.text());
            params.set("arguments", written.unwrap_or_else(|_| raw(&json!({}))));
        }
        Operation::Resource { uri } => params.set("uri", raw(&json!(uri))),
    }
    params
}

/// Returns the reply for a result.
pub(super) fn reply(operation: &Operation, (result, held): (RawObject, Held)) -> Reply {
    let kind: String = result.read("resultType").unwrap_or_else(|| "complete".to_owned());
    let member = match operation {
        Operation::Tool { .. } => "content",
        Operation::Prompt { .. } => "messages",
        Operation::Resource { .. } => "contents",
    };
    match kind.as_str() {
        "input_required" => {
            let parts =
                ["inputRequests", "requestState"].map(|part| result.get(part).map_or(0, |part| part.get().len()));
            let Some(requests) = requests(&result).filter(|_| parts.iter().sum::<usize>() <= LONGEST) else {
                return in_words(operation, "the backend requests too much, or in a form unknown to MCP");
            };
            Reply::InputRequired(InputRequired { requests, state: result.read("requestState") })
        }
        "complete" if result.get(member).is_some_and(|value| value.get().starts_with('[')) => {
            Reply::Forwarded(result, held)
        }
        "complete" => in_words(operation, &format!("the backend's answer has no {member}")),
        "task" => in_words(operation, "the backend answers with a task, which this server does not support"),
        _ => in_words(operation, "the backend answers with a kind of result that this server does not know"),
    }
}

/// Returns the requests to the client. Their limits are those of a client's own request.
fn requests(result: &RawObject) -> Option<BTreeMap<String, Value>> {
    let Some(requests) = result.get("inputRequests") else { return Some(BTreeMap::new()) };
    match strict_json::from_slice(requests.get().as_bytes()) {
        Ok(Value::Object(requests)) => Some(requests.into_iter().collect()),
        _ => None,
    }
}

/// Returns a reply with this text, for a backend that gave no result.
pub(super) fn in_words(operation: &Operation, text: &str) -> Reply {
    match operation {
        Operation::Tool { .. } => Reply::Complete(tool_error(text)),
        Operation::Prompt { .. } | Operation::Resource { .. } => Reply::Failed(Failure::internal(text)),
    }
}

/// Returns the reply for an error of the backend.
pub(super) fn failure(operation: &Operation, error: BackendError) -> Reply {
    match error {
        BackendError::Away(_) | BackendError::Resting { .. } | BackendError::SessionLost => {
            Reply::Later(Lack::Backend, error.to_string())
        }
        BackendError::Answered(error) => match required(&error) {
            Some(missing) => Reply::CapabilityMissing(missing),
            None => Reply::Failed(answered(error)),
        },
        BackendError::Ended
        | BackendError::Busy(..)
        | BackendError::Crowded(_)
        | BackendError::Silent(_)
        | BackendError::TooLarge(_)
        | BackendError::Malformed(_)
        | BackendError::Status(_)
        | BackendError::Forbidden
        | BackendError::Unauthorized(_) => in_words(operation, &error.to_string()),
    }
}

/// Returns the reply for a caller without an identity for the backend.
pub(super) fn unknown_caller(operation: &Operation, error: &BackendIdentityError) -> Reply {
    match error.sign_in() {
        Some(sign_in) => Reply::SignIn(sign_in, error.told()),
        None if error.is_store_away() => Reply::Later(Lack::SessionStore, error.to_string()),
        None => in_words(operation, &error.told()),
    }
}

/// Returns the failure for an error of the backend.
pub(super) fn error(error: BackendError) -> Failure {
    match error {
        BackendError::Answered(error) => answered(error),
        error => Failure::internal(error.to_string()),
    }
}

/// Returns the client capabilities that the backend requires, as this error names them, or `None` for another error.
fn required(error: &PeerError) -> Option<JsonObject> {
    let data = error.data.as_ref().filter(|_| error.code == CAPABILITY_MISSING)?;
    let mut data = strict_json::from_slice(data.get().as_bytes()).ok()?;
    match data.get_mut("requiredCapabilities").map(Value::take) {
        Some(Value::Object(required)) if !required.is_empty() => Some(required),
        _ => None,
    }
}

fn answered(error: PeerError) -> Failure {
    let PeerError { code, message, data } = error;
    let data = data.and_then(|data| strict_json::from_slice(data.get().as_bytes()).ok());
    match i32::try_from(code) {
        _ if code == INVALID_PARAMS || code == RESOURCE_NOT_FOUND => Failure { data, ..Failure::invalid(message) },
        Ok(code) if !RESERVED.contains(&code.into()) => Failure { code, message, data },
        _ => Failure { data, ..Failure::internal(message) },
    }
}
