//! Start and stop of the server. Stopping drops no request.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mcp_entra_policy::{GraphConfiguration, GroupsSource, ServerConfiguration};
use serde_json::Value;
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
use crate::http::listener::{self, Counted, PATIENCE, Sharing};
use crate::http::origin::Accepted;
use crate::http::rate_limit::RateLimits;
use crate::http::{Answers, Gate};
use crate::inputs::{self, InputError};
use crate::oauth::{self, AuthorizationServer};
use crate::offer::backend::BackendOffer;
use crate::offer::graph::GraphOffer;
use crate::offer::{self, About, Offer};
use crate::policy::PolicyStore;
use crate::protocol::Protocol;
use crate::telemetry::Metrics;
use crate::token::{Keys, TokenValidator, issuer};

/// Longest wait for the last audit lines.
const LAST_LINES: Duration = Duration::from_secs(5);
/// Instructions for models about the tools.
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
    /// The socket of a backend over stdio, if one is configured.
    pub backend_socket: Option<PathBuf>,
    /// Files of the authorization server, if one is configured.
    pub oauth: oauth::start::Files,
    /// The address of the MCP endpoint.
    pub listen: SocketAddr,
    /// The address of health, status and metrics.
    pub admin_listen: SocketAddr,
    /// Time for which requests are still accepted after the stop signal, so that load balancers notice.
    pub drain: Duration,
}

/// The reason why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The authorization server cannot be started.
    #[error(transparent)]
    AuthorizationServer(#[from] oauth::start::OAuthStartError),
    /// The backend cannot be located.
    #[error(transparent)]
    Backend(#[from] PlaceError),
    /// There is no HTTP client for the backend.
    #[error("cannot make an HTTP client for the backend ({0}); report this defect to the developers of this server")]
    BackendClient(reqwest::Error),
    /// A configured address is not a URL.
    #[error("{field} of the configuration is not a URL ({source}); correct it")]
    Address {
        /// The field.
        field: &'static str,
        /// The reason.
        source: url::ParseError,
    },
    /// No key for the signed assertions to the backend.
    #[error(
        "cannot make a key to sign callers' identities for the backend ({0}); check the node's random number generator"
    )]
    BackendIdentity(SigningError),
    /// The thread of the audit log cannot be started.
    #[error("cannot start a thread that writes the audit log ({0}); allow the pod more processes")]
    Audit(std::io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({source}); choose another with {option}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The command-line option that sets it.
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

/// Starts a server and returns once both ports listen. Keys, policy and probe follow in the background; `/readyz`
/// shows when they are there. Audit lines go to `audit`.
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

/// Starts a server like [`start`], with another offer than the built-in tools. A configured backend takes precedence.
pub async fn start_offering(
    options: Options,
    token: FederatedToken,
    audit: Box<dyn Write + Send>,
    offer: impl FnOnce(About, &GraphConfiguration, GraphClient) -> Arc<dyn Offer>,
) -> Result<Running, StartError> {
    let configuration = inputs::configuration(&options.config)?;
    let client = inputs::http_client(options.trust_bundle.as_deref())?;
    let ports = Ports::listen(&options, sharing(&configuration))?;
    let [draining, stop, background] = [(); 3].map(|()| CancellationToken::new());
    let policy = policy(&options, &background).await;
    let entra = Entra::new((client, token), &configuration, &background)?;
    let metrics = Arc::new(Metrics::default());
    let audit = AuditLog::start(&configuration.server, configuration.audit, Arc::clone(&metrics), audit);
    let audit = Arc::new(audit.map_err(StartError::Audit)?);
    let (backend, backend_keys) = backend(&options, &configuration, (&ports, &entra), &background)?;
    let offer: Arc<dyn Offer> = match &backend {
        Some(backend) => Arc::<BackendOffer>::clone(backend),
        None => offer(about(&configuration), &configuration.graph, entra.graph.clone()),
    };
    let own = authorization_server(&options, &configuration, &entra, (&policy, &audit))?;
    let answers = Arc::<Answers>::default();
    let admin = Admin {
        keys: Arc::clone(&entra.keys),
        policy: Arc::clone(&policy),
        probe: entra.probe,
        sts: entra.sts,
        graph: configuration.graph.base_url.clone(),
        backend_keys,
        session_store: own.as_ref().map(|own| own.probe_store(background.clone())),
        backend,
        audit: Arc::clone(&audit),
        metrics,
        draining: draining.clone(),
    };
    let tokens = TokenValidator::new(&configuration, entra.keys);
    let resolves_groups = configuration.entra.groups == GroupsSource::Resolve;
    let gate = Gate {
        authorization_server: own.as_ref().map_or_else(|| issuer(&configuration.entra), |own| own.issuer()),
        accepted: Accepted::new(&configuration),
        cors: cors::endpoint(&configuration.allowed_origins),
        protocol: Protocol::new(Arc::clone(&offer)),
        offer,
        tokens: match &own {
            Some(own) => tokens.with_own_issuer(own.as_issuer()),
            None => tokens,
        },
        policy,
        groups: resolves_groups.then(|| GroupDirectory::new(entra.graph.clone())),
        rate_limits: RateLimits::new(configuration.rate_limit.per_user),
        audit: Arc::clone(&audit),
        challenge: Challenge::new(&configuration),
        draining: draining.clone(),
        answers: Arc::clone(&answers),
        configuration,
    };
    let Ports { address, admin_address, .. } = ports;
    let serving = ports.serve(gate, own, admin, (stop.clone(), background.clone()));
    tracing::info!(%address, %admin_address, "serving");
    let (drain, graph) = (options.drain, entra.graph);
    Ok(Running { address, admin_address, drain, draining, stop, background, serving, graph, answers, audit })
}

/// The ports, which are listened on.
struct Ports {
    listener: TcpListener,
    address: SocketAddr,
    admin_listener: TcpListener,
    admin_address: SocketAddr,
}

impl Ports {
    fn listen(options: &Options, sharing: Sharing) -> Result<Self, StartError> {
        let (listener, address) = listen((options.listen, "--listen"), sharing)?;
        let (admin_listener, admin_address) = listen((options.admin_listen, "--admin-listen"), sharing)?;
        Ok(Self { listener, address, admin_listener, admin_address })
    }

    /// Serves both ports: the endpoint until `stop`, and the admin port until the end of what runs in the background.
    fn serve(
        self,
        gate: Gate,
        own: Option<Arc<AuthorizationServer>>,
        admin: Admin,
        (stop, background): (CancellationToken, CancellationToken),
    ) -> JoinHandle<()> {
        // The admin port outlives the other: until the last request is answered, `/readyz` says why the pod is leaving.
        let admin = admin::router(Arc::new(admin));
        tokio::spawn(listener::serve(self.admin_listener, admin, PATIENCE, Counted::Everybody, background));
        let counted = Counted::AllBut(gate.configuration.trusted_proxies.clone());
        let endpoint = Endpoint::new(Arc::new(gate), own.map_or_else(Router::new, oauth::router));
        tokio::spawn(listener::serve(self.listener, endpoint, PATIENCE, counted, stop))
    }
}

/// The ways to Entra and to Microsoft Graph.
struct Entra {
    client: reqwest::Client,
    token: FederatedToken,
    keys: Arc<Keys>,
    sts: Arc<Sts>,
    probe: Probe,
    graph: GraphClient,
}

impl Entra {
    /// The ways by this configuration. Keys and probe follow in the background.
    fn new(
        (client, token): (reqwest::Client, FederatedToken),
        configuration: &ServerConfiguration,
        background: &CancellationToken,
    ) -> Result<Self, StartError> {
        let no_address = |field| move |source| StartError::Address { field, source };
        let ServerConfiguration { entra, graph, .. } = configuration;
        let keys = Arc::new(Keys::new(client.clone(), entra));
        let (fetching, cancellation) = (Arc::clone(&keys), background.clone());
        tokio::spawn(async move { fetching.run(cancellation).await });
        let sts = Sts::new(client.clone(), entra, token.clone()).map_err(no_address("entra.authority"))?;
        let sts = Arc::new(sts);
        let interval = Duration::from_secs(configuration.probe.interval_seconds.max(1).into());
        let probe = Probe::spawn(Arc::clone(&sts), &graph.base_url, interval, background.clone());
        let application = ApplicationCredential::new(client.clone(), entra, &graph.base_url, token.clone());
        let graph = GraphClient::new(client.clone(), graph, Arc::clone(&sts), application);
        Ok(Self { client, token, keys, sts, probe, graph: graph.map_err(no_address("graph.baseUrl"))? })
    }
}

/// The policy, which is followed in the background.
async fn policy(options: &Options, background: &CancellationToken) -> Arc<PolicyStore> {
    let policy = Arc::new(PolicyStore::new(options.policy.clone()));
    policy.reload().await;
    tokio::spawn(Arc::clone(&policy).watch(background.clone()));
    policy
}

/// The offer of the backend, if the configuration has one, and the public keys by which it verifies who is calling.
fn backend(
    options: &Options,
    configuration: &ServerConfiguration,
    (ports, entra): (&Ports, &Entra),
    background: &CancellationToken,
) -> Result<(Option<Arc<BackendOffer>>, Option<Value>), StartError> {
    let identities = BackendIdentities::new(configuration, Arc::clone(&entra.sts));
    let identities = identities.map_err(StartError::BackendIdentity)?;
    let keys = identities.jwks();
    let Some(backend) = &configuration.backend else { return Ok((None, keys)) };
    let place = Place::new(&backend.transport, options.backend_socket.clone())?;
    let own = vec![ports.address, ports.admin_address];
    let parts = offer::backend::Parts { title: title(configuration), place, identities, own };
    let started = BackendOffer::start(parts, backend, background.clone());
    Ok((Some(started.map_err(StartError::BackendClient)?), keys))
}

fn title(configuration: &ServerConfiguration) -> String {
    format!("{} ({})", configuration.server.name, configuration.server.namespace)
}

/// Describes the built-in tools.
fn about(configuration: &ServerConfiguration) -> About {
    About { title: title(configuration), instructions: INSTRUCTIONS.to_owned(), ..About::default() }
}

/// The authorization server, if the configuration has one.
fn authorization_server(
    options: &Options,
    configuration: &ServerConfiguration,
    entra: &Entra,
    (policy, audit): (&Arc<PolicyStore>, &Arc<AuditLog>),
) -> Result<Option<Arc<AuthorizationServer>>, StartError> {
    let Some(server) = &configuration.authorization_server else { return Ok(None) };
    let shared = oauth::start::Shared {
        http: entra.client.clone(),
        federated_token: entra.token.clone(),
        keys: Arc::clone(&entra.keys),
        policy: Arc::clone(policy),
        audit: Arc::clone(audit),
        trust_bundle: options.trust_bundle.as_deref(),
    };
    Ok(Some(Arc::new(oauth::start::start(configuration, server, &options.oauth, shared)?)))
}

impl Running {
    /// The address of the MCP endpoint.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of health, status and metrics.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The client of Microsoft Graph.
    pub fn graph(&self) -> &GraphClient {
        &self.graph
    }

    /// Stops the server in steps:
    ///
    /// 1. It becomes unready at once and accepts requests while load balancers notice.
    /// 2. Running requests finish; after 20 s they are cut off.
    /// 3. Their audit lines are written, for at most 5 s.
    /// 4. Everything else stops.
    ///
    /// Requests that change something in Graph run to their end, even if their callers do not wait.
    pub async fn shutdown(self) {
        tracing::info!(seconds = self.drain.as_secs(), "draining");
        self.draining.cancel();
        tokio::time::sleep(self.drain).await;
        self.stop.cancel();
        let end = Instant::now() + PATIENCE.finish + LAST_LINES;
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the listener failed");
        }
        self.answers.end().await;
        let (lines, requests) = tokio::join!(self.audit.end(LAST_LINES), timeout_at(end, self.graph.end()));
        if requests.is_err() {
            tracing::error!(
                "requests that change something in Microsoft Graph were cut off: they did not finish in time"
            );
        }
        let seconds = LAST_LINES.as_secs();
        match lines {
            Ok(()) => {}
            Err(Unfinished::Requests) => {
                tracing::error!(seconds, "the last audit lines were not written: some requests did not finish");
            }
            Err(Unfinished::Lines) => {
                tracing::error!(seconds, "the last audit lines were not written: standard output is blocked");
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

/// Returns the programs that share the ports. Beside a backend, a program of the same user holds them, so that the
/// backend cannot take them while the server restarts.
fn sharing(configuration: &ServerConfiguration) -> Sharing {
    if configuration.backend.is_some() { Sharing::SameUser } else { Sharing::Nobody }
}

fn listen(
    (address, option): (SocketAddr, &'static str),
    sharing: Sharing,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, option, source };
    let listener = listener::listen(address, sharing).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
