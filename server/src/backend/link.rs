//! Transport to a backend, and the parts of messages that depend on the transport and the revision.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::http::Http;
use super::lines::Lines;
use crate::backend_identity::Told;
use crate::raw_json::{RawObject, raw};

/// The revision without a handshake, in which each request is independent.
pub(super) const MODERN: &str = "2026-07-28";

/// The transport to a backend.
pub(super) enum Link {
    Lines(Lines),
    Http(Http),
}

impl Link {
    /// Returns the token that is cancelled when the session over this link has ended.
    pub(super) fn ended(&self) -> &CancellationToken {
        match self {
            Self::Lines(lines) => lines.ended(),
            Self::Http(http) => http.ended(),
        }
    }
}

/// Adds the assertion about the user, if messages have no headers.
pub(super) fn assert_in(meta: &mut RawObject, link: &Link, told: &Told) {
    if let (Link::Lines(_), Told::Assertion(assertion)) = (link, told) {
        meta.set("dev.mcp-entra/assertion", raw(&json!(assertion.expose_secret())));
    }
}

/// Returns the members of `_meta` that each request has since 2026-07-28.
pub(super) fn modern_meta(capabilities: &Map<String, Value>) -> RawObject {
    let mut meta = RawObject::default();
    meta.set("io.modelcontextprotocol/protocolVersion", raw(&json!(MODERN)));
    meta.set("io.modelcontextprotocol/clientInfo", raw(&client_info()));
    meta.set("io.modelcontextprotocol/clientCapabilities", raw(&json!(capabilities)));
    meta
}

/// Returns the name and version of this server as a client.
pub(super) fn client_info() -> Value {
    json!({ "name": "mcp-entra-server", "version": env!("CARGO_PKG_VERSION") })
}

/// Adds a header with this value. Encodes the value if headers cannot carry it (MCP 2026-07-28, headers of the
/// transport).
pub(super) fn repeat(headers: &mut HeaderMap, name: &str, value: &str) {
    let is_plain =
        value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && value.trim() == value && !value.starts_with("=?");
    let value = match is_plain {
        true => value.to_owned(),
        false => format!("=?base64?{}?=", STANDARD.encode(value)),
    };
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}
