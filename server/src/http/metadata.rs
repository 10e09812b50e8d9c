//! The protected resource metadata (RFC 9728). It is public, so that clients find the authorization server.

use axum::Router;
use axum::http::{Method, StatusCode};
use axum::routing::get;
use mcp_entra_policy::ServerConfiguration;
use serde_json::{Value, json};

use super::{answer, cors};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Serves the document at the path-inserted form (RFC 9728 section 3.1) and at the root form, which many clients try
/// first. A server without a public URL has no resource identifier that is valid for all callers, so it answers 404.
/// `authorization_server` is the issuer for clients.
pub(super) fn router(configuration: &ServerConfiguration, authorization_server: &str) -> Router {
    let document = document(configuration, authorization_server);
    let handler = get(move || async move {
        match document {
            Some(document) => axum::response::IntoResponse::into_response(axum::Json(document)),
            None => answer::problem(
                StatusCode::NOT_FOUND,
                "this server has no public URL and therefore no metadata; it is reachable only inside its cluster",
            ),
        }
    })
    .layer(cors::public(Method::GET));
    let inserted = inserted_path(configuration);
    let router = Router::new().route(WELL_KNOWN, handler.clone());
    if inserted == WELL_KNOWN { router } else { router.route(&inserted, handler) }
}

/// Returns the URL of the path-inserted form, if there is a public URL.
pub(super) fn document_url(configuration: &ServerConfiguration) -> Option<String> {
    let origin = configuration.public_url.as_deref()?.strip_suffix(configuration.path.as_str())?;
    Some(format!("{origin}{}", inserted_path(configuration)))
}

fn inserted_path(configuration: &ServerConfiguration) -> String {
    format!("{WELL_KNOWN}{}", configuration.path.trim_end_matches('/'))
}

fn document(configuration: &ServerConfiguration, authorization_server: &str) -> Option<Value> {
    let resource = configuration.public_url.as_deref()?;
    let scopes = match configuration.authorization_server {
        Some(_) => configuration.entra.required_scopes.clone(),
        None => configuration.qualified_scopes(),
    };
    Some(json!({
        "resource": resource,
        "authorization_servers": [authorization_server],
        "scopes_supported": scopes,
        "bearer_methods_supported": ["header"],
        "resource_name": format!("{} ({})", configuration.server.name, configuration.server.namespace),
    }))
}
