//! A gate for tests of single stages, without keys or policy.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mcp_entra_policy::ServerConfiguration;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Gate;
use super::challenge::Challenge;
use super::origin::Accepted;
use super::rate_limit::RateLimits;
use crate::audit::AuditLog;
use crate::offer::{About, Call, Failure, Offer, Offered, Reply, Unavailable};
use crate::policy::PolicyStore;
use crate::protocol::Protocol;
use crate::telemetry::Metrics;
use crate::token::{Keys, Principal, TokenValidator};

/// An offer that is unavailable.
pub(super) struct OfferAway;

#[async_trait]
impl Offer for OfferAway {
    fn about(&self) -> Arc<About> {
        Arc::default()
    }

    async fn snapshot(&self, _: &Arc<Principal>) -> Result<Arc<Offered>, Unavailable> {
        Err(Unavailable { text: "The offer is away.".to_owned(), sign_in: None })
    }

    async fn call(&self, call: Call) -> Reply {
        Reply::Failed(Failure::not_found(&call.operation))
    }
}

/// The audit log's output.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Returns the only line.
    pub(super) fn only(&self) -> Value {
        serde_json::from_slice(&self.0.lock().unwrap()).unwrap()
    }
}

/// Returns a gate for this offer, without keys, policy or groups.
pub(super) fn gate(offer: Arc<dyn Offer>, metrics: Arc<Metrics>, lines: Lines) -> Gate {
    let configuration: ServerConfiguration = serde_json::from_value(json!({
        "server": { "namespace": "productivity", "name": "graph" },
        "path": "/mcp",
        "entra": {
            "tenantId": "8f6b0000-0000-4000-8000-000000000001",
            "clientId": "1c2d0000-0000-4000-8000-000000000002",
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
    let audit = AuditLog::start(&configuration.server, configuration.audit, metrics, Box::new(lines));
    Gate {
        authorization_server: crate::token::issuer(&configuration.entra),
        accepted: Accepted::new(&configuration),
        cors: None,
        tokens: TokenValidator::new(&configuration, keys),
        policy: Arc::new(PolicyStore::new("/nowhere".into())),
        groups: None,
        protocol: Protocol::new(Arc::clone(&offer)),
        offer,
        rate_limits: RateLimits::new(configuration.rate_limit.per_user),
        audit: Arc::new(audit.unwrap()),
        challenge: Challenge::new(&configuration),
        draining: CancellationToken::new(),
        answers: Arc::default(),
        configuration,
    }
}
