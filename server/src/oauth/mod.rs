//! The authorization server between MCP clients and Entra. To clients it is an OAuth 2.1 server. To Entra it is a
//! confidential client whose only credential is the federated one.
//!
//! Entra does not support dynamic registration, client ID metadata documents, or MCP URLs as resources. So clients
//! register here, people approve each client, and Entra signs them in. The access tokens are this server's own;
//! Entra's tokens stay in the sealed session.
//!
//! | Module | Purpose |
//! |---|---|
//! | [`addresses`], `metadata` | issuer and endpoints, and the metadata document |
//! | `router`, `limits` | the endpoints over HTTP, and their rate limits |
//! | `authorize`, `sign_in` | the browser's steps: the person's decision, Entra, and back to the client |
//! | `request`, `scopes`, `parameters` | the client's request |
//! | `grants`, `refresh`, `revocation`, `answer` | the client's requests: tokens for codes and refresh tokens, and revocation |
//! | `session`, `sessions`, `own_sessions` | a person's sign-in through a client: as data, in the store, and on a page |
//! | `access_token` | the tokens that clients send to this server |
//! | [`keys`], [`seal`] | keys by purpose and epoch, and sealed values |
//! | [`store`], [`records`], `store_probe` | the store that all replicas share, its records, and its probe |
//! | [`clients`] | clients and their redirect URIs |
//! | [`start`] | start |
//! | [`pages`], `browser`, `cookies` | pages for people, and their browsers |

mod access_token;
pub mod addresses;
mod answer;
mod authorize;
mod browser;
pub mod clients;
mod cookies;
mod grants;
pub mod keys;
mod limits;
mod metadata;
mod own_sessions;
pub mod pages;
mod parameters;
pub mod records;
mod refresh;
mod registration;
mod request;
mod revocation;
mod router;
mod scopes;
pub mod seal;
mod session;
mod sessions;
mod sign_in;
pub mod start;
pub mod store;
mod store_probe;

use std::sync::{Arc, Mutex};

use mcp_entra_policy::ServerConfiguration;
use serde_json::Value;

use addresses::Addresses;
use clients::Clients;
use keys::KeyRing;
use limits::Limits;
use records::Records;
use seal::Sealer;
use store::Store;

use crate::audit::AuditLog;
use crate::entra::ConfidentialClient;
use crate::http::origin::Accepted;
use crate::policy::PolicyStore;
use crate::token::TokenValidator;

pub use router::router;
pub use sessions::SessionKeeper;
pub use store_probe::StoreProbe;

/// Dependencies of the authorization server.
pub struct Parts {
    /// The server's configuration.
    pub configuration: ServerConfiguration,
    /// The policy in force.
    pub policy: Arc<PolicyStore>,
    /// Verifies Entra's tokens for this server's own application.
    pub entra_tokens: TokenValidator,
    /// Requests tokens from Entra.
    pub entra: ConfidentialClient,
    /// Records every step.
    pub audit: Arc<AuditLog>,
    /// The keys.
    pub ring: Arc<KeyRing>,
    /// The store that all replicas share.
    pub store: Arc<dyn Store>,
    /// The clients.
    pub clients: Clients,
}

/// The authorization server of one MCP server.
pub struct AuthorizationServer {
    configuration: ServerConfiguration,
    addresses: Addresses,
    metadata: Value,
    accepted: Accepted,
    policy: Arc<PolicyStore>,
    entra_tokens: TokenValidator,
    entra: ConfidentialClient,
    audit: Arc<AuditLog>,
    ring: Arc<KeyRing>,
    /// Id of the last signing key.
    signed_with: Mutex<String>,
    sealer: Sealer,
    store: Arc<dyn Store>,
    records: Records,
    sessions: Arc<SessionKeeper>,
    clients: Clients,
    limits: Limits,
}

impl AuthorizationServer {
    /// Returns the authorization server of this configuration at these addresses.
    pub fn new(parts: Parts, addresses: Addresses) -> Self {
        let Parts { configuration, policy, entra_tokens, entra, audit, ring, store, clients } = parts;
        let sealer = Sealer::new(Arc::clone(&ring));
        let records = Records::new(Arc::clone(&store), sealer.clone());
        let sessions = SessionKeeper::new(records.clone(), sealer.clone(), Arc::clone(&ring), Arc::clone(&policy));
        let metadata = metadata::document(&addresses, &clients, &configuration.entra.required_scopes);
        let signed_with = Mutex::new(ring.signing(now()).key_id.clone());
        let accepted = Accepted::new(&configuration);
        let sessions = Arc::new(sessions);
        let limits = Limits::new();
        Self {
            configuration,
            addresses,
            metadata,
            accepted,
            policy,
            entra_tokens,
            entra,
            audit,
            ring,
            signed_with,
            sealer,
            store,
            records,
            sessions,
            clients,
            limits,
        }
    }

    /// Returns the sessions, for the validation of tokens.
    pub fn sessions(&self) -> Arc<SessionKeeper> {
        Arc::clone(&self.sessions)
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
