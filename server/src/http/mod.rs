//! What a request goes through, in this order, each a layer that can be read alone:
//!
//! 1. [`trace`]: a request id, a span, the audit trail
//! 2. [`limits`]: how large and how long
//! 3. [`client_address`]: where does it come from?
//! 4. [`origin`]: does it mean this server, and does it come from a page that may ask?
//! 5. [`cors`]: what may a page of another origin read?
//! 6. [`bearer`]: is there a token?
//! 7. [`rate_limit`]: did that address send too many bad ones?
//! 8. [`principal`]: whose is it?
//! 9. [`rate_limit`] again: do they ask too often?
//! 10. [`message`]: what is asked? (POST only, one message, parsed once)
//! 11. [`accept`]: can they read the answer?
//! 12. [`authorize`]: may they?
//! 13. [`sign_in`]: does the answer depend on the user's next sign-in?
//!
//! What comes through is answered by the rmcp service. 401, 403, 429 and 503 are answered here, before it: a handler cannot
//! set an HTTP status. Apart from that there are the documents that everybody may read ([`metadata`]), how refusals
//! look ([`answer`], [`challenge`]), and the [`listener`] under all of it.

mod accept;
pub mod answer;
pub mod authorize;
pub mod bearer;
pub mod challenge;
mod challenged;
pub mod client_address;
mod connections;
mod cors;
pub mod limits;
pub mod listener;
pub mod message;
pub mod metadata;
pub mod origin;
pub mod principal;
pub mod rate_limit;
pub mod sign_in;
pub mod trace;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use mcp_entra_policy::ServerConfiguration;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::audit::AuditLog;
use crate::graph_tools::GraphTools;
use crate::groups::GroupDirectory;
use crate::policy::PolicyStore;
use crate::token::TokenValidator;
use challenge::Challenge;
use rate_limit::RateLimits;

/// What the layers judge by.
pub struct Gate {
    /// The server's configuration.
    pub configuration: ServerConfiguration,
    /// Issuer of the authorization server that clients get their tokens from.
    pub authorization_server: String,
    /// Verifies bearer tokens.
    pub tokens: TokenValidator,
    /// Says what callers may do.
    pub policy: Arc<PolicyStore>,
    /// Learns groups that tokens do not say; absent where the configuration has them in the token alone.
    pub groups: Option<GroupDirectory>,
    /// Say how often callers may ask.
    pub rate_limits: RateLimits,
    /// Records every judgement.
    pub audit: Arc<AuditLog>,
    /// Tells clients how to get a token.
    pub challenge: Challenge,
}

/// The MCP endpoint behind its layers, with or without a slash at its end, and the public metadata documents beside it.
pub fn router(gate: Arc<Gate>, tools: GraphTools) -> Router {
    let layers = ServiceBuilder::new()
        .layer(from_fn_with_state(Arc::clone(&gate), trace::layer))
        .layer(CatchPanicLayer::new())
        .layer(from_fn(limits::layer))
        .layer(from_fn_with_state(Arc::clone(&gate), client_address::layer))
        .layer(from_fn_with_state(Arc::clone(&gate), origin::layer))
        .option_layer(cors::endpoint(&gate.configuration.allowed_origins))
        .layer(from_fn_with_state(Arc::clone(&gate), bearer::layer))
        .layer(from_fn_with_state(Arc::clone(&gate), rate_limit::by_address))
        .layer(from_fn_with_state(Arc::clone(&gate), principal::layer))
        .layer(from_fn_with_state(Arc::clone(&gate), rate_limit::by_principal))
        .layer(from_fn(message::layer))
        .layer(from_fn(accept::layer))
        .layer(from_fn_with_state(Arc::clone(&gate), authorize::layer))
        .layer(from_fn_with_state(Arc::clone(&gate), sign_in::layer))
        .layer(map_response(answer::in_json));
    let service = mcp_service(tools);
    let path = gate.configuration.path.trim_end_matches('/');
    let mut router = Router::new().route_service(&format!("{path}/"), service.clone());
    if !path.is_empty() {
        router = router.route_service(path, service);
    }
    let endpoint = gate.configuration.public_url.as_ref().unwrap_or(&gate.configuration.path);
    let elsewhere = format!("there is nothing here; the MCP endpoint is {endpoint}");
    router
        .route_layer(layers)
        .merge(metadata::router(&gate.configuration, &gate.authorization_server))
        .fallback(move || async move { answer::problem(StatusCode::NOT_FOUND, &elsewhere) })
}

/// One sessionless endpoint for both eras of the protocol, so that replicas share nothing.
fn mcp_service(tools: GraphTools) -> StreamableHttpService<GraphTools, NeverSessionManager> {
    // rmcp's own check of Host knows loopback only; `origin` has already made both.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(limits::MAXIMUM_BODY_BYTES)
        .disable_allowed_hosts();
    StreamableHttpService::new(move || Ok(tools.clone()), Arc::new(NeverSessionManager::default()), config)
}
