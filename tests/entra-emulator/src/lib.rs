//! Microsoft Entra ID and Microsoft Graph over HTTPS on this machine, for tests and the demo.
//!
//! The emulator has two hosts, as the real services: the authority (metadata, keys, sign-in page, tokens) and Graph.
//! Both have certificates of the emulator's own authority. Client assertions are checked as federated credentials
//! against the current keys of their issuer. Client secrets are never accepted.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use entra_emulator::{Configuration, EntraEmulator, Tenant};
//!
//! let emulator = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await?;
//! emulator.control().add_tenant(Tenant { id: uuid::Uuid::new_v4(), ..Tenant::default() })?;
//! println!("{} {}", emulator.authority(), emulator.graph());
//! # Ok(()) }
//! ```
//!
//! # Differences from the real services
//!
//! - Users have no password and no second factor: the page lists the users. A browser's session has one user, the last
//!   who signed in. It ends with log-out, revocation or the process.
//! - The sign-in implies consent to the client's request, unless `consent` is set. `ask` shows a page that asks the
//!   user. `admin_only` shows a page that refers everybody except an `administrator` to one. On-behalf-of always
//!   requires earlier consent (`grantedGraphScopes`, `preAuthorizedClients`, or at a page). Any other consent includes
//!   the scopes of OpenID Connect. Device codes have no page for consent.
//! - In Entra, a policy and the publisher decide whether users may consent. Here it is a setting of each app.
//! - Conditional Access applies only to Graph on behalf of a user (`conditionalAccess`), and only supports a second
//!   factor. The claims name the policy's id, and a sign-in with these claims meets it. Throttling only comes from
//!   injected faults.
//! - If the token endpoint refuses a revoked user, it returns the claims that a new sign-in meets. Entra's behaviour is
//!   not known.
//! - Every app has a single tenant: `common` and `organizations` have metadata and answer AADSTS50194 elsewhere.
//! - A new federated credential is effective at once unless a test delays its propagation. An issuer's keys are fetched
//!   for every exchange. In Entra both take seconds to minutes.
//! - A device polls every second, and every app may request device codes.
//! - Tokens are valid for 3599 seconds unless `accessTokenLifetimeSeconds` is set, and `nbf` is the time of issue.
//! - The metadata names endpoints that do not exist: user info, and the v1 ones.
//! - v1 tokens have the public cloud's issuer, `https://sts.windows.net/…`; everything else is under the emulator's own
//!   authority.
//! - After an authorization request with several resources, a token request without `scope` is for the first one.
//! - For some AADSTS codes, no real answer with its status and `error` is known. They use those of the most similar
//!   known condition. A code with a PKCE challenge, redeemed without its verifier, also results in AADSTS501481.
//! - Graph has users, memberships and messages to read. It accepts messages to send and events to create, but does not
//!   deliver them. `$select` ignores unknown names. `$filter` and other options of messages that it would have to
//!   ignore are answered with 501. The times of a new event are returned as sent, not in UTC.

mod admin_consent;
mod authorize;
mod batch;
mod calendar;
mod claims;
mod client;
mod configuration;
mod consent;
mod control;
mod control_http;
mod device;
pub mod edge;
mod errors;
mod federation;
mod graph;
pub mod issuer;
mod keys;
mod log;
mod mail;
mod metadata;
mod observe;
mod pages;
mod paging;
mod resource;
mod session;
pub mod sign_in;
mod state;
mod tls;
mod token;
mod users;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use calendar::CreatedEvent;
pub use configuration::{
    App, AppRole, ConditionalAccess, Configuration, Consent, FederatedCredential, Group, GroupMembershipClaims,
    MemberType, Message, OptionalClaim, RoleAssignment, TOKEN_EXCHANGE_AUDIENCE, Tenant, TokenVersion, User,
};
pub use control::Control;
pub use log::{Fault, FaultKind, FederatedIdentity, Host, LoggedRequest, Matcher};
pub use mail::SentMessage;

/// A running emulator; dropping it stops it.
pub struct EntraEmulator {
    shared: Arc<state::Shared>,
    _stop: DropGuard,
}

impl EntraEmulator {
    /// Starts both hosts on the current tokio runtime, and ends with it. An emulator that several tests share needs its
    /// own runtime. The authority listens on `listen`, Graph on the same address and a free port.
    ///
    /// # Errors
    /// If an address is taken, a trusted authority cannot be read, or a tenant contradicts itself.
    pub async fn start(configuration: Configuration, listen: SocketAddr) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr| {
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
        };
        let authority = bind(listen).await?;
        let graph = bind(SocketAddr::new(listen.ip(), 0)).await?;
        let url = |listener: &TcpListener| -> anyhow::Result<String> {
            Ok(format!("https://{}:{}", configuration.host, listener.local_addr()?.port()))
        };
        let (authority_url, graph_url) = (url(&authority)?, url(&graph)?);

        // The generation of keys takes a good part of a second of CPU time.
        let host = configuration.host;
        let (identity, shared) = tokio::task::spawn_blocking(move || {
            let identity = tls::Identity::generate(&host)?;
            let shared = state::Shared::new(authority_url, graph_url, identity.ca_pem.clone())?;
            anyhow::Ok((identity, shared))
        })
        .await??;
        for path in &configuration.trusted_ca_files {
            let pem = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the trusted authority {}", path.display()))?;
            shared.trust(&pem).with_context(|| path.display().to_string())?;
        }
        for tenant in configuration.tenants {
            shared.add_tenant(tenant)?;
        }

        let (identity, shared) = (Arc::new(identity), Arc::new(shared));
        let stop = CancellationToken::new();
        let routers = [authority_router(&shared), graph_router(&shared)];
        for ((host, listener), router) in [(Host::Authority, authority), (Host::Graph, graph)].into_iter().zip(routers)
        {
            let (identity, shared, stop) = (Arc::clone(&identity), Arc::clone(&shared), stop.clone());
            tokio::spawn(async move {
                if let Err(error) = identity.serve(listener, router, shared.door(host), &stop).await {
                    tracing::error!(%error, ?host, "the host cannot be reached any more");
                }
            });
        }
        Ok(Self { shared, _stop: stop.drop_guard() })
    }

    /// The authority's URL, e.g. `https://localhost:41234`.
    pub fn authority(&self) -> &str {
        &self.shared.authority
    }

    /// Graph's URL, e.g. `https://localhost:41235`.
    pub fn graph(&self) -> &str {
        &self.shared.graph
    }

    /// The certificate authority of both, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.shared.ca_pem
    }

    /// Control of the emulator by tests.
    pub fn control(&self) -> Control {
        Control { shared: Arc::clone(&self.shared) }
    }
}

fn authority_router(shared: &Arc<state::Shared>) -> Router {
    Router::new()
        .route("/{tenant}/v2.0/.well-known/openid-configuration", get(metadata::configuration_v2))
        .route("/{tenant}/.well-known/openid-configuration", get(metadata::configuration_v1))
        .route("/{tenant}/discovery/v2.0/keys", get(metadata::keys_v2))
        .route("/{tenant}/discovery/keys", get(metadata::keys_v1))
        .route("/common/discovery/instance", get(metadata::instance))
        .route("/{tenant}/oauth2/v2.0/authorize", get(authorize::page).post(authorize::submit))
        .route("/{tenant}/oauth2/v2.0/logout", get(session::log_out))
        .route("/{tenant}/v2.0/adminconsent", get(admin_consent::page).post(admin_consent::submit))
        .route("/{tenant}/oauth2/v2.0/devicecode", post(device::code))
        .route("/devicelogin", get(device::page).post(device::submit))
        .route("/{tenant}/oauth2/v2.0/token", post(token::token))
        .layer(from_fn_with_state((Arc::clone(shared), Host::Authority), observe::observe))
        .merge(control_http::router())
        .with_state(Arc::clone(shared))
}

fn graph_router(shared: &Arc<state::Shared>) -> Router {
    let observed = from_fn_with_state((Arc::clone(shared), Host::Graph), observe::observe);
    let graph = graph::router().layer(observed.clone()).with_state(Arc::clone(shared));
    Router::new()
        .route("/v1.0/$batch", post(batch::batch))
        .layer(from_fn(graph::identify))
        .layer(observed)
        .with_state(graph.clone())
        .merge(graph)
}
