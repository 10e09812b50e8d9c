//! The hand-over to the protocol: everything that tools read about their caller is put into the request here.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use super::authorize::Granted;
use super::{answer, limits};
use crate::graph_tools::{GraphTools, SignInNeeded};
use crate::token::Principal;

/// The service that answers judged messages.
pub(super) type McpService = StreamableHttpService<GraphTools, NeverSessionManager>;

/// One sessionless endpoint for both eras of the protocol, so that replicas share nothing.
pub(super) fn mcp_service(tools: GraphTools) -> McpService {
    // rmcp's own check of Host knows loopback only; `origin` has already made both.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(limits::MAXIMUM_BODY_BYTES)
        .disable_allowed_hosts();
    StreamableHttpService::new(move || Ok(tools.clone()), Arc::new(NeverSessionManager::default()), config)
}

/// The answer to a judged message. `needed` takes the sign-in that a tool asks for.
pub(super) async fn stage(
    service: &McpService,
    mut request: Request,
    principal: &Arc<Principal>,
    granted: Granted,
    needed: &SignInNeeded,
) -> Response {
    let extensions = request.extensions_mut();
    extensions.insert(Arc::clone(principal));
    extensions.insert(granted.permissions);
    extensions.insert(Arc::clone(needed));
    if let Some(graph) = granted.graph {
        extensions.insert(graph);
    }
    answer::in_json(service.handle(request).await.map(Body::new)).await
}
