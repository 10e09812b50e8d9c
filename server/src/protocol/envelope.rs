//! Messages to clients as JSON text: results in the form of the client's revision, and notifications.

use axum::body::Bytes;
use serde_json::{Value, json};

use super::Revision;
use crate::offer::JsonObject;

const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// The kind of a result, which decides what the envelope says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An answer to one request.
    Once,
    /// An answer that clients could keep. They are told not to: it may differ for everybody, and at any time.
    Cacheable,
}

/// The name and version of this server, as clients see them.
pub(super) fn server_info(title: &str) -> Value {
    json!({ "name": env!("CARGO_PKG_NAME"), "title": title, "version": env!("CARGO_PKG_VERSION") })
}

/// Adds the members that results have since 2026-07-28.
pub(super) fn complete(mut result: JsonObject, revision: Revision, kind: Kind, server_info: &Value) -> JsonObject {
    if !revision.is_modern() {
        return result;
    }
    result.entry("resultType").or_insert_with(|| json!("complete"));
    if kind == Kind::Cacheable {
        result.insert("ttlMs".to_owned(), json!(0));
        result.insert("cacheScope".to_owned(), json!("private"));
    }
    if let Value::Object(meta) = result.entry("_meta").or_insert_with(|| json!({})) {
        meta.insert(SERVER_INFO.to_owned(), server_info.clone());
    }
    result
}

/// The answer to the request of this id: a result as JSON text.
pub(super) fn result(id: &Value, result: &str) -> Bytes {
    Bytes::from([r#"{"jsonrpc":"2.0","id":"#, &id.to_string(), r#","result":"#, result, "}"].concat())
}

/// A notification.
pub(super) fn notification(method: &str, params: &Value) -> Bytes {
    Bytes::from(json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string())
}
