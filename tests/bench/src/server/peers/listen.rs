//! HTTP service of rmcp on a port, as in its documentation.

use std::sync::Arc;

use axum::Router;
use axum::serve::ListenerExt;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;

/// Serves a handler at `/mcp`, without sessions and with JSON answers, until the process ends.
pub(super) async fn serve(port: u16, handler: impl ServerHandler + Clone) -> anyhow::Result<()> {
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    let service =
        StreamableHttpService::new(move || Ok(handler.clone()), Arc::new(NeverSessionManager::default()), config);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?.tap_io(|stream| {
        _ = stream.set_nodelay(true);
    });
    axum::serve(listener, Router::new().nest_service("/mcp", service)).await?;
    Ok(())
}
