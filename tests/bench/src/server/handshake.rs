//! Handshake of revisions before 2026-07-28, as a client performs it.

use std::time::Duration;

use anyhow::{Context, ensure};
use http::StatusCode;
use serde_json::json;

/// Revision in clients' requests.
pub(super) const REVISION: &str = "2025-11-25";
/// Notification that ends it.
pub(super) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Timeout of an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Request that begins it.
pub(super) fn initialize() -> String {
    let client = json!({"name": "bench", "version": env!("CARGO_PKG_VERSION")});
    let params = json!({"protocolVersion": REVISION, "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string()
}

/// Opens a session at this URL, and returns its id.
///
/// # Errors
/// If the server does not answer as one that keeps sessions.
pub(super) async fn open_session(url: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let post = |body: String| {
        let post = client.post(url).header("content-type", "application/json").body(body);
        post.header("accept", "application/json, text/event-stream")
    };
    let answer = post(initialize()).send().await?.error_for_status()?;
    let session = answer.headers().get("mcp-session-id").context("the server opens no session")?.to_str()?.to_owned();
    answer.bytes().await?;
    let initialized = post(INITIALIZED.to_owned()).header("mcp-session-id", &session);
    let status = initialized.header("mcp-protocol-version", REVISION).send().await?.status();
    ensure!(status == StatusCode::ACCEPTED, "the end of the handshake was answered {status}");
    Ok(session)
}
