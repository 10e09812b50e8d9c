//! Messages to clients as JSON text: results in the format of the client's revision, and notifications.

use axum::body::Bytes;
use serde_json::{Value, json};

use super::Revision;
use crate::offer::JsonObject;
use crate::raw_json::{RawObject, raw};

/// Members of a result that belong to its envelope.
const ENVELOPE: [&str; 3] = ["resultType", "ttlMs", "cacheScope"];
/// Prefix of the members of `_meta` that the protocol defines.
const PROTOCOLS_OWN: &str = "io.modelcontextprotocol/";
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// The kind of a result, which determines its envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An answer to one request.
    Once,
    /// An answer that clients could cache. The envelope forbids it: the answer may differ for each caller, and at any
    /// time.
    Cacheable,
}

/// Returns the name and version of this server for clients.
pub(super) fn server_info(title: &str) -> Value {
    json!({ "name": env!("CARGO_PKG_NAME"), "title": title, "version": env!("CARGO_PKG_VERSION") })
}

/// Adds the members of results since 2026-07-28.
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

/// Replaces the envelope of a result whose other members keep their text.
pub(super) fn complete_raw(mut result: RawObject, revision: Revision, kind: Kind, server_info: &Value) -> RawObject {
    result.retain(|name| !ENVELOPE.contains(&name));
    let mut meta = result.read::<RawObject>("_meta").unwrap_or_default();
    meta.retain(|name| !name.starts_with(PROTOCOLS_OWN));
    if revision.is_modern() {
        meta.set(SERVER_INFO, raw(server_info));
        result.set("resultType", raw(&json!("complete")));
        if kind == Kind::Cacheable {
            result.set("ttlMs", raw(&json!(0)));
            result.set("cacheScope", raw(&json!("private")));
        }
    }
    match meta.is_empty() {
        true => drop(result.remove("_meta")),
        false => result.set("_meta", meta.into_raw()),
    }
    result
}

/// Returns the answer to the request of this id, with a result as JSON text.
pub(super) fn result(id: &Value, result: &str) -> Bytes {
    Bytes::from([r#"{"jsonrpc":"2.0","id":"#, &id.to_string(), r#","result":"#, result, "}"].concat())
}

/// Returns a notification.
pub(super) fn notification(method: &str, params: &Value) -> Bytes {
    Bytes::from(json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string())
}
