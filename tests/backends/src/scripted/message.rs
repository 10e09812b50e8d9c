//! Messages of JSON-RPC, with the parts that a misbehaving backend needs.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A message of the client.
#[derive(Debug)]
pub(super) struct Message {
    /// The exact text of the id, in a request or an answer.
    pub(super) id: Option<String>,
    /// The method, unless this is an answer.
    pub(super) method: Option<String>,
    /// The parameters.
    pub(super) params: Value,
    /// The exact text of the parameters' `arguments`.
    pub(super) arguments: Option<String>,
    /// The parsed message.
    pub(super) whole: Value,
}

#[derive(Deserialize)]
struct Wire {
    id: Option<Box<RawValue>>,
    method: Option<String>,
    params: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Params {
    arguments: Option<Box<RawValue>>,
}

impl Message {
    /// Parses a message. Returns `None` for a batch, and for anything else than JSON.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let wire: Wire = serde_json::from_str(text).ok()?;
        let params = wire.params.as_deref().map_or("{}", RawValue::get);
        let arguments = serde_json::from_str::<Params>(params).ok().and_then(|params| params.arguments);
        Some(Self {
            id: wire.id.map(|id| id.get().to_owned()),
            method: wire.method,
            params: serde_json::from_str(params).ok()?,
            arguments: arguments.map(|arguments| arguments.get().to_owned()),
            whole: serde_json::from_str(text).ok()?,
        })
    }

    /// A member of `_meta`.
    pub(super) fn meta(&self, name: &str) -> Option<&Value> {
        self.params.get("_meta")?.get(name)
    }

    /// Returns a parameter that is a string.
    pub(super) fn text(&self, name: &str) -> &str {
        self.params.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Returns a result with the exact text of an id.
pub(super) fn result(id: &str, result: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// Returns an error with the exact text of an id.
pub(super) fn error(id: &str, code: i32, message: &str, data: &Value) -> String {
    let mut error = json!({ "code": code, "message": message });
    if let (Some(error), false) = (error.as_object_mut(), data.is_null()) {
        error.insert("data".to_owned(), data.clone());
    }
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// Returns a notification.
pub(super) fn notification(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()
}
