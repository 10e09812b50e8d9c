//! Start and stop: puts the parts together, and takes the server out of service without dropping a request.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mcp_entra_policy::{GraphConfiguration, GroupsSource};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::audit::{AuditLog, Unfinished};
use crate::backend::{Place, PlaceError};
use crate::backend_identity::BackendIdentities;
use crate::entra::{ApplicationCredential, FederatedToken, Probe, Sts};
use crate::es256::SigningError;
use crate::graph::GraphClient;
use crate::groups::GroupDirectory;
use crate::http::challenge::Challenge;
use crate::http::cors;
use crate::http::endpoint::Endpoint;
use crate::http::listener::{self, Counted, PATIENCE};
use crate::http::origin::Accepted;
use crate::http::rate_limit::RateLimits;
use crate::http::{Answers, Gate};
use crate::inputs::{self, InputError};
use crate::oauth;
use crate::offer::backend::BackendOffer;
use crate::offer::graph::GraphOffer;
use crate::offer::{self, About, Offer};
use crate::policy::PolicyStore;
use crate::protocol::Protocol;
use crate::telemetry::Metrics;
use crate::token::{Keys, TokenValidator, issuer};

/// Time for the last audit lines to be written.
const LAST_LINES: Duration = Duration::from_secs(5);
/// Words about the tools, for models.
const INSTRUCTIONS: &str =
    "Tools that use Microsoft Graph as the signed-in user. Each user sees the tools that a role grants.";

/// Options of a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// The compiled policy, which may change while the server runs.
    pub policy: PathBuf,
    /// CA certificates for outgoing TLS, besides the system's.
    pub trust_bundle: Option<PathBuf>,
    /// The socket of a backend over stdio, where the configuration has one.
    pub backend_socket: Option<PathBuf>,
    /// Files of the authorization server, where the configuration has one.
    pub oauth: oauth::start::Files,
    /// The address of the MCP endpoint.
    pub listen: SocketAddr,
    /// The address for health, status and metrics.
    pub admin_listen: SocketAddr,
    /// Time for which requests are still accepted after the stop was asked for, so that load balancers notice.
    pub drain: Duration,
}

/// The reason why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The authorization server cannot be started.
    #[error(transparent)]
    AuthorizationServer(#[from] oauth::start::OAuthStartError),
    /// The backend has no place.
    #[error(transparent)]
    Backend(#[from] PlaceError),
    /// There is no HTTP client for the backend.
    #[error("no HTTP client for the backend ({0}); report this defect to the developers of this server")]
    BackendClient(reqwest::Error),
    /// A configured address is none.
    #[error("{field} of the configuration is no address ({source}); correct it")]
    Address {
        /// The field.
        field: &'static str,
        /// The reason.
        source: url::ParseError,
    },
    /// There is no key to tell the backend with who is calling.
    #[error("cannot make a key that signs callers' identities for the backend ({0}); check the node's random numbers")]
    BackendIdentity(SigningError),
    /// No thread for the audit log.
    #[error("cannot start a thread that writes the audit log ({0}); allow the pod more processes")]
    Audit(std::io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({source}); choose another with {option}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The option that names it.
        option: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// A running server.
pub struct Running {
    address: SocketAddr,
    admin_address: SocketAddr,
    drain: Duration,
    draining: CancellationToken,
    stop: CancellationToken,
    background: CancellationToken,
    serving: JoinHandle<()>,
    graph: GraphClient,
    answers: Arc<Answers>,
    audit: Arc<AuditLog>,
}

/// Starts a server and returns once both ports are listened on: keys, policy and probe follow in the background, and
/// `/readyz` says when they are there. Audit lines go to `audit`.
pub async fn start(
    options: Options,
    token: FederatedToken,
    audit: Box<dyn Write + Send>,
) -> Result<Running, StartError> {
    start_offering(options, token, audit, |about, configuration, graph| {
        warn_of_tools_that_are_not_offered(configuration);
        Arc::new(GraphOffer::new(about, configuration, graph))
    })
    .await
}

/// Starts a server as [`start`] does, with another offer than the built-in tools. A backend of the configuration goes before.
pub async fn start_offering(
    options: Options,
    token: FederatedToken,
    audit: Box<dyn Write + Send>,
    offer: impl FnOnce(About, &GraphConfiguration, GraphClient) -> Arc<dyn Offer>,
) -> Result<Running, StartError> {
    let configuration = inputs::configuration(&options.config)?;
    let client = inputs::http_client(options.trust_bundle.as_deref())?;
    let (listener, address) = listen(options.listen, "--listen")?;
    let (admin_listener, admin_address) = listen(options.admin_listen, "--admin-listen")?;
    let [draining, stop, background] = [(); 3].map(|()| CancellationToken::new());

    let policy = Arc::new(PolicyStore::new(options.policy));
    policy.reload().await;
    tokio::spawn(Arc::clone(&policy).watch(background.clone()));

    let keys = Arc::new(Keys::new(client.clone(), &configuration.entra));
    let (fetching, cancellation) = (Arc::clone(&keys), background.clone());
    tokio::spawn(async move { fetching.run(cancellation).await });

    let no_address = |field| move |source| StartError::Address { field, source };
    let shared = (client.clone(), token.clone());
    let sts = Sts::new(client.clone(), &configuration.entra, token.clone()).map_err(no_address("entra.authority"))?;
    let sts = Arc::new(sts);
    let graph = &configuration.graph;
    let base_url = graph.base_url.clone();
    let application = ApplicationCredential::new(client.clone(), &configuration.entra, &graph.base_url, token);
    let identities = BackendIdentities::new(&configuration, Arc::clone(&sts)).map_err(StartError::BackendIdentity)?;
    let backend_keys = identities.jwks();
    let interval = Duration::from_secs(configuration.probe.interval_seconds.max(1).into());
    let probe = Probe::spawn(Arc::clone(&sts), &graph.base_url, interval, background.clone());
    let graph = GraphClient::new(client, graph, Arc::clone(&sts), application).map_err(no_address("graph.baseUrl"))?;
    let title = format!("{} ({})", configuration.server.name, configuration.server.namespace);
    let backend = match &configuration.backend {
        Some(backend) => {
            let place = Place::new(&backend.transport, options.backend_socket)?;
            let own = vec![address, admin_address];
            let parts = offer::backend::Parts { title: title.clone(), place, identities, own };
            let started = BackendOffer::start(parts, backend, background.clone());
            Some(started.map_err(StartError::BackendClient)?)
        }
        None => None,
    };
    let offer: Arc<dyn Offer> = match &backend {
        Some(backend) => Arc::<BackendOffer>::clone(backend),
        None => {
            let about = About { title, instructions: INSTRUCTIONS.to_owned(), ..About::default() };
            offer(about, &configuration.graph, graph.clone())
        }
    };
    let groups = (configuration.entra.groups == GroupsSource::Resolve).then(|| GroupDirectory::new(graph.clone()));

    let metrics = Arc::new(Metrics::default());
    let audit = AuditLog::start(&configuration.server, configuration.audit, Arc::clone(&metrics), audit);
    let audit = Arc::new(audit.map_err(StartError::Audit)?);
    let (http, federated_token) = shared;
    let own = match &configuration.authorization_server {
        Some(server) => {
            let (keys, policy, audit) = (Arc::clone(&keys), Arc::clone(&policy), Arc::clone(&audit));
            let trust_bundle = options.trust_bundle.as_deref();
            let shared = oauth::start::Shared { http, federated_token, keys, policy, audit, trust_bundle };
            Some(Arc::new(oauth::start::start(&configuration, server, &options.oauth, shared)?))
        }
        None => None,
    };
    let tokens = TokenValidator::new(&configuration, Arc::clone(&keys));
    let answers = Arc::<Answers>::default();
    let gate = Arc::new(Gate {
        authorization_server: own.as_ref().map_or_else(|| issuer(&configuration.entra), |own| own.issuer()),
        accepted: Accepted::new(&configuration),
        cors: cors::endpoint(&configuration.allowed_origins),
        protocol: Protocol::new(Arc::clone(&offer)),
        offer,
        tokens: match &own {
            Some(own) => tokens.with_own_issuer(own.as_issuer()),
            None => tokens,
        },
        policy: Arc::clone(&policy),
        groups,
        rate_limits: RateLimits::new(configuration.rate_limit.per_user),
        audit: Arc::clone(&audit),
        challenge: Challenge::new(&configuration),
        draining: draining.clone(),
        answers: Arc::clone(&answers),
        configuration,
    });
    let session_store = own.as_ref().map(|own| own.probe_store(background.clone()));
    let admin = Admin {
        keys,
        policy,
        probe,
        sts,
        graph: base_url,
        backend_keys,
        session_store,
        backend,
        audit: Arc::clone(&audit),
        metrics,
        draining: draining.clone(),
    };
    // The admin port outlives the other: until the last request is answered, `/readyz` says why the pod is leaving.
    let admin = admin::router(Arc::new(admin));
    tokio::spawn(listener::serve(admin_listener, admin, PATIENCE, Counted::Everybody, background.clone()));
    let counted = Counted::AllBut(gate.configuration.trusted_proxies.clone());
    let endpoint = Endpoint::new(gate, own.map_or_else(Router::new, oauth::router));
    let serving = tokio::spawn(listener::serve(listener, endpoint, PATIENCE, counted, stop.clone()));
    tracing::info!(%address, %admin_address, "serving");
    Ok(Running {
        address,
        admin_address,
        drain: options.drain,
        draining,
        stop,
        background,
        serving,
        graph,
        answers,
        audit,
    })
}

impl Running {
    /// The address of the MCP endpoint.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for health, status and metrics.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The way to Microsoft Graph.
    pub fn graph(&self) -> &GraphClient {
        &self.graph
    }

    /// Stops: unready at once, requests accepted while load balancers notice, those being answered finished (for at most
    /// 20 s, then cut off), their audit lines written (for at most 5 s), then the rest. Requests that change something in
    /// Graph end meanwhile, whether or not their callers wait.
    pub async fn shutdown(self) {
        tracing::info!(seconds = self.drain.as_secs(), "draining");
        self.draining.cancel();
        tokio::time::sleep(self.drain).await;
        self.stop.cancel();
        let end = Instant::now() + PATIENCE.finish + LAST_LINES;
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the listener ended badly");
        }
        self.answers.end().await;
        let (lines, requests) = tokio::join!(self.audit.end(LAST_LINES), timeout_at(end, self.graph.end()));
        if requests.is_err() {
            tracing::error!("requests that change something in Microsoft Graph are cut off: they did not end");
        }
        let seconds = LAST_LINES.as_secs();
        match lines {
            Ok(()) => {}
            Err(Unfinished::Requests) => {
                tracing::error!(seconds, "the last audit lines are not written: some requests did not end");
            }
            Err(Unfinished::Lines) => {
                tracing::error!(seconds, "the last audit lines are not written: standard output takes nothing");
            }
        }
        self.background.cancel();
    }
}

fn warn_of_tools_that_are_not_offered(configuration: &GraphConfiguration) {
    let is_offered = |name: &str| configuration.offered().any(|tool| tool.name == name);
    for name in configuration.tools.iter().filter(|name| !is_offered(name)) {
        tracing::warn!(name, "tool not offered: graph.scopes lacks a permission that it needs; add it");
    }
}

fn listen(address: SocketAddr, option: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, option, source };
    let listener = listener::listen(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
