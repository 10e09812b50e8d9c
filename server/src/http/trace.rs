//! A request id of our own, a span for the logs, and the audit trail.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

use super::{Gate, answer};

/// Time for which a request waits for room in the queue of audit lines.
const PATIENCE: Duration = Duration::from_secs(30);

/// Names a request in the answer and in the audit log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Begins the trail of a request and answers its id as `x-request-id`.
pub(super) async fn layer(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    // Never the client's: ids in the audit log are unique and cannot be chosen.
    let id = Uuid::new_v4().to_string();
    let span = tracing::info_span!("request", request_id = id);
    let mut response = match gate.audit.begin(id.clone(), PATIENCE).instrument(span.clone()).await {
        Some(recording) => {
            request.extensions_mut().insert(recording.trail());
            let response = next.run(request).instrument(span).await;
            recording.answered(response.status().as_u16());
            response
        }
        None => answer::try_later(
            "the audit log takes no further line, and what cannot be recorded is not done; try again later",
        ),
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use mcp_entra_policy::{ServerConfiguration, ServerStatus};
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;
    use crate::audit::AuditLog;
    use crate::http::challenge::Challenge;
    use crate::http::rate_limit::RateLimits;
    use crate::policy::PolicyStore;
    use crate::telemetry::Metrics;
    use crate::token::{Keys, TokenValidator};

    fn gate(audit: Arc<AuditLog>) -> Arc<Gate> {
        let configuration: ServerConfiguration = serde_json::from_value(json!({
            "server": { "namespace": "productivity", "name": "graph" },
            "path": "/mcp",
            "entra": {
                "tenantId": "8f6b0000-0000-4000-8000-000000000001", "clientId": "1c2d0000-0000-4000-8000-000000000002",
                "authority": "https://login.microsoftonline.com", "audiences": [], "requiredScopes": [],
                "allowedClients": [], "tokenVersions": ["V2"], "groups": "Resolve",
            },
            "graph": {
                "baseUrl": "https://graph.microsoft.com", "scopes": [], "tools": [], "access": "OnBehalfOf",
            },
            "probe": { "intervalSeconds": 60 },
        }))
        .unwrap();
        let http = crate::http_client::build(None).unwrap();
        let keys = Arc::new(Keys::new(http, &configuration.entra));
        Arc::new(Gate {
            authorization_server: crate::token::issuer(&configuration.entra),
            tokens: TokenValidator::new(&configuration, keys),
            policy: Arc::new(PolicyStore::new("/nowhere".into())),
            groups: None,
            rate_limits: RateLimits::new(configuration.rate_limit.per_user),
            audit,
            challenge: Challenge::new(&configuration),
            configuration,
        })
    }

    #[tokio::test]
    async fn a_request_for_which_the_audit_log_has_no_room_is_refused_with_its_id_and_counted() {
        let server = mcp_entra_policy::ServerReference { namespace: "productivity".into(), name: "graph".into() };
        let metrics = Arc::<Metrics>::default();
        let audit = AuditLog::start(&server, Default::default(), Arc::clone(&metrics), Box::new(std::io::sink()));
        let audit = Arc::new(audit.unwrap());
        // A log that has ended takes no line, as one that is full: nobody waits for it here.
        audit.end(Duration::from_secs(30)).await.unwrap();
        let router = Router::new().route("/", get(|| async { "let in" }));
        let router = router.layer(from_fn_with_state(gate(audit), layer));
        for _ in 0..3 {
            let answer = router.clone().oneshot(Request::new(Body::empty())).await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.headers().contains_key(REQUEST_ID), "{answer:?}");
        }
        let status: ServerStatus = serde_json::from_value(json!({
            "version": "", "policy": {}, "federation": {}, "keys": { "count": 0 },
        }))
        .unwrap();
        let metrics = metrics.encode(&status).unwrap();
        let counted = r#"mcp_entra_server_requests_total{method="",decision="refused",reason="audit_log_full"} 3"#;
        assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    }
}
