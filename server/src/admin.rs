//! The admin port: liveness, readiness, status and metrics of the pod. It takes GET only, shows no identities of
//! callers, and must never be exposed outside the cluster.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mcp_entra_policy::{GraphStatus, ServerStatus};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::audit::AuditLog;
use crate::entra::{Probe, Sts};
use crate::oauth::StoreProbe;
use crate::offer::backend::BackendOffer;
use crate::policy::PolicyStore;
use crate::telemetry::Metrics;
use crate::token::Keys;

/// The parts of the server that the admin port reports about.
pub struct Admin {
    /// The signing keys.
    pub keys: Arc<Keys>,
    /// The policy.
    pub policy: Arc<PolicyStore>,
    /// The probe of the federated credential.
    pub probe: Probe,
    /// The exchanges on behalf of users.
    pub sts: Arc<Sts>,
    /// Address of Microsoft Graph: the prefix of its scopes.
    pub graph: String,
    /// Public keys (a JWK Set) that verify the signed assertions sent to the backend, if there are any.
    pub backend_keys: Option<Value>,
    /// The probe of the session store, if one is configured.
    pub session_store: Option<StoreProbe>,
    /// The offer of the backend, if one is configured.
    pub backend: Option<Arc<BackendOffer>>,
    /// The audit log.
    pub audit: Arc<AuditLog>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the server begins to stop.
    pub draining: CancellationToken,
}

impl Admin {
    /// Returns the state of this pod.
    pub fn status(&self) -> ServerStatus {
        ServerStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy: self.policy.status(),
            federation: self.probe.status(),
            keys: self.keys.status(),
            graph: GraphStatus { missing_permissions: self.sts.unconsented(&self.graph) },
            session_store: self.session_store.as_ref().map(StoreProbe::status),
            backend: self.backend.as_ref().map(|backend| backend.status()),
        }
    }
}

/// Returns the routes of the admin port.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/backend/jwks.json", get(backend_keys))
        .with_state(admin)
}

/// Answers 200 if the pod can judge requests: it has keys to verify tokens, a policy, and an audit log that takes
/// lines.
///
/// A failing token exchange does not make the pod unready. It would take every pod out of service at once, although
/// they can still serve cached answers.
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let status = admin.status();
    let keys = match (status.keys.count, &status.keys.error) {
        (0, error) => Err(format!("no usable signing key; {}", error.as_deref().unwrap_or("not fetched yet"))),
        (count, None) => Ok(format!("{count} usable")),
        (count, Some(error)) => Ok(format!("{count} usable, but the last fetch failed: {error}")),
    };
    let policy = match (&status.policy.revision, &status.policy.error) {
        (None, error) => Err(format!("none; {}", error.as_deref().unwrap_or("not read yet"))),
        (Some(revision), None) => Ok(format!("revision {revision}")),
        (Some(revision), Some(error)) => Ok(format!("revision {revision}, but not the newest: {error}")),
    };
    let audit = admin.audit.trouble().map_or_else(|| Ok("lines are written".to_owned()), Err);
    let serving = if admin.draining.is_cancelled() { Err("shutting down".to_owned()) } else { Ok("yes".to_owned()) };

    let checks = [("keys", keys), ("policy", policy), ("audit", audit), ("serving", serving)];
    let ready = checks.iter().all(|(_, result)| result.is_ok());
    let text: String = checks
        .iter()
        .map(|(name, result)| match result {
            Ok(text) => format!("[+] {name}: {text}\n"),
            Err(text) => format!("[-] {name}: {text}\n"),
        })
        .collect();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, text).into_response()
}

async fn status(State(admin): State<Arc<Admin>>) -> axum::Json<ServerStatus> {
    axum::Json(admin.status())
}

/// Returns the public keys of this process. The backend can outlive the process: it fetches the keys again when it
/// meets an unknown key id.
async fn backend_keys(State(admin): State<Arc<Admin>>) -> Response {
    match &admin.backend_keys {
        Some(keys) => ([(header::CACHE_CONTROL, "max-age=60")], axum::Json(keys)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    match admin.metrics.encode(&admin.status()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
