//! HTTPS edge on one loopback port: a double of an ingress controller and of a Gateway API implementation. It routes by
//! the Ingresses of class `testbed`, and by the HTTPRoutes at Gateways and ListenerSets of GatewayClass `testbed`.
//! Targets are the ready endpoints of their Services. It serves the certificates that they name. The definitions of
//! Gateway API are optional, and may be added at any time.
//!
//! No real controller is built in its place. Traefik (v3.7.13) imports a client for each DNS provider of ACME, and a Go module
//! proxy with a list of allowed hosts does not serve all of these: `reading …/github.com/ucloud/ucloud-sdk-go/@v/v0.22.116.zip:
//! 403 Forbidden`.
//!
//! It differs from a real Ingress controller: `defaultBackend` and resource backends are ignored,
//! `ImplementationSpecific` paths are prefixes, and connections are not upgraded.
//!
//! Differences from an implementation of Gateway API:
//!
//! - **Listeners.** Only HTTPS. The edge serves every listener on its one port; the ports of listeners only distinguish
//!   them. The request's host decides. It is not compared with the connection's server name.
//! - **Routes.** Only HTTPRoutes, by hostname and path (`PathPrefix`, `Exact`). A route with filters, or with matches
//!   by method, header, query parameter or regular expression, is not accepted: `UnsupportedValue`.
//! - **Backends.** Services of the route's own namespace. The Services of one rule share its requests by their number
//!   of endpoints, not by weight, except weight 0. A rule without an existing backend is answered with 500.
//! - **Timeouts.** `request`, from the request's head to the end of the answer. No limit if absent.
//! - **References into other namespaces** are `RefNotPermitted`: ReferenceGrants are ignored.
//! - **Certificates.** Only the first of a listener's certificateRefs.

mod certificates;
mod cluster;
mod gateway;
mod ingresses;
mod status;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use futures::StreamExt;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, header};
use http_body_util::Either;
use hyper::body::Incoming;
use k8s_openapi::api::networking::v1::Ingress;
use kube::{Client, ResourceExt};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::address::Pods;
use crate::controller::Statuses;
use crate::forward::{Body, Limited, Target, forward};
use crate::network_policy::{Identity, NetworkPolicies};
use crate::serve::{Serving, answer, serve};
use certificates::{Certificates, Resolver};

use table::Table;

/// Ingress class and Gateway class of the edge.
pub const CLASS: &str = "testbed";
/// Controller name in its classes.
pub const CONTROLLER: &str = "mcp-entra.dev/testbed-edge";

/// Namespace of the edge's pods. It need not exist.
pub const NAMESPACE: &str = "edge";
/// Value of their label `app.kubernetes.io/name`.
pub const APP: &str = "testbed-edge";

const SYNCED: Duration = Duration::from_secs(30);
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Running edge; it ends when dropped.
pub struct Edge {
    serving: Serving,
    _watching: AbortOnDropHandle<()>,
}

impl Edge {
    /// Creates the ingress class, and serves the cluster's routes on a free loopback port. It runs on the current tokio
    /// runtime, which must be `client`'s. It follows every change. For NetworkPolicies it is a pod of [`NAMESPACE`]
    /// whose `app.kubernetes.io/name` is [`APP`].
    ///
    /// # Errors
    /// If the API server does not answer, or the edge cannot listen.
    pub async fn start(client: Client) -> anyhow::Result<Self> {
        Self::start_as(client, Identity::new(NAMESPACE, APP)).await
    }

    /// Starts an edge for pods of this sort.
    ///
    /// # Errors
    /// Same as [`Edge::start`].
    pub async fn start_before(client: Client, pods: Pods) -> anyhow::Result<Self> {
        Self::start_with(client, Identity::new(NAMESPACE, APP), pods).await
    }

    /// Starts an edge with another identity for NetworkPolicies.
    ///
    /// # Errors
    /// Same as [`Edge::start`].
    pub async fn start_as(client: Client, identity: Identity) -> anyhow::Result<Self> {
        Self::start_with(client, identity, Pods::Processes).await
    }

    async fn start_with(client: Client, identity: Identity, pods: Pods) -> anyhow::Result<Self> {
        let forwarder = Arc::new(Forwarder { policies: NetworkPolicies::start(&client).await?, identity, pods });
        status::create_class(&client).await.context("create the ingress class")?;
        let resolver = Arc::new(Resolver::new()?);
        let table = Arc::new(ArcSwap::from_pointee(Table::default()));
        let routes = Arc::clone(&table);
        let turn = Arc::new(AtomicUsize::new(0));
        let serving = serve(Some(acceptor(Arc::clone(&resolver))?), move |request, from| {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            handle(request, from, routes.load_full(), Arc::clone(&forwarder), turn)
        })
        .await?;

        let (cluster, mut changes) = cluster::watch(&client);
        let port = serving.address().port();
        let mut statuses = Statuses::new(client.clone(), status::MANAGER);
        let (synced, first) = tokio::sync::oneshot::channel();
        let watching = tokio::spawn(async move {
            let mut synced = Some(synced);
            while changes.next().await.is_some() {
                if !cluster.is_synced() {
                    continue;
                }
                let (ingresses, objects) = (cluster.ingresses.state(), cluster.objects());
                let decision = gateway::Decision::new(&objects);
                let mut rules = ingresses::all_rules(&ingresses, &objects.services, &objects.slices);
                rules.extend(decision.rules());
                table.store(Arc::new(Table::new(rules)));
                let certificates = Certificates::new(&ingresses, &objects.secrets, decision.certificates());
                resolver.current.store(Arc::new(certificates));
                if let Some(synced) = synced.take() {
                    let _ = synced.send(());
                }
                if cluster.lacks_class() {
                    status::create_gateway_class(&client).await;
                }
                statuses.retain(|uid| {
                    ingresses.iter().any(|known| known.uid().as_deref() == Some(uid)) || objects.have(uid)
                });
                status::write(&mut statuses, &ingresses, port).await;
                decision.write(&mut statuses).await;
            }
        });
        let watching = AbortOnDropHandle::new(watching);
        tokio::time::timeout(SYNCED, first).await.context("the edge did not read the cluster's routes in time")??;
        Ok(Self { serving, _watching: watching })
    }

    /// Address of HTTPS for every host.
    pub fn address(&self) -> SocketAddr {
        self.serving.address()
    }
}

fn is_ours(ingress: &Ingress) -> bool {
    ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref()) == Some(CLASS)
}

fn acceptor(resolver: Arc<Resolver>) -> anyhow::Result<TlsAcceptor> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Path from the edge to pods.
struct Forwarder {
    policies: NetworkPolicies,
    /// Identity of the edge for NetworkPolicies.
    identity: Identity,
    pods: Pods,
}

/// Selects endpoints in turn, and the next one if an endpoint cannot be reached.
async fn handle(
    mut request: Request<Incoming>,
    from: IpAddr,
    table: Arc<Table>,
    forwarder: Arc<Forwarder>,
    turn: usize,
) -> Response<Body> {
    let Some(host) = host(&request) else {
        return answer(StatusCode::BAD_REQUEST, "the request names no host");
    };
    let name = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let path = request.uri().path();
    let Some(backend) = table.route(&name, path) else {
        let why = format!("no Ingress or HTTPRoute of class {CLASS} has a rule for host {name} and path {path}");
        return answer(StatusCode::NOT_FOUND, why);
    };
    let Some(service) = &backend.service else {
        let why = format!("{} names no existing Service", backend.route);
        return answer(StatusCode::INTERNAL_SERVER_ERROR, why);
    };
    let whose = format!("Service {service} of {}", backend.route);
    if backend.targets.is_empty() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, format!("{whose} has no ready endpoint"));
    }
    let Forwarder { policies, identity, pods } = &*forwarder;
    let check = |target: &Target| policies.check(identity, target.pod.ip(), target.port);
    let open: Vec<Target> = backend.targets.iter().filter(|target| check(target).is_ok()).copied().collect();
    if let (Some(Err(why)), true) = (backend.targets.first().map(check), open.is_empty()) {
        return answer(StatusCode::GATEWAY_TIMEOUT, format!("{whose}: {why}"));
    }
    set_forwarded(request.headers_mut(), &host, from);
    let until = backend.limit.map(|limit| Instant::now() + limit);
    let forwarded = forward(request, in_turn(&open, turn), *pods);
    let forwarded = match until {
        Some(until) => timeout_at(until, forwarded).await,
        None => Ok(forwarded.await),
    };
    match forwarded {
        Ok(Ok(response)) => response.map(|body| Either::Left(Limited::new(body, until))),
        Ok(Err(error)) => answer(StatusCode::BAD_GATEWAY, format!("{whose}: {error}")),
        Err(_) => answer(StatusCode::GATEWAY_TIMEOUT, format!("{whose} has not answered within the rule's timeout")),
    }
}

fn in_turn(targets: &[Target], turn: usize) -> impl Iterator<Item = Target> {
    let first = turn.checked_rem(targets.len()).unwrap_or_default();
    targets.iter().copied().cycle().skip(first).take(targets.len())
}

/// Returns the host from the client: in HTTP/2 the authority, otherwise the Host header.
fn host<B>(request: &Request<B>) -> Option<String> {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let header = || request.headers().get(header::HOST)?.to_str().ok();
    authority.or_else(header).map(str::to_owned)
}

/// Replaces headers in which the client describes itself, since they cannot be trusted.
fn set_forwarded(headers: &mut HeaderMap, host: &str, from: IpAddr) {
    headers.remove(header::FORWARDED);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    if let Ok(from) = HeaderValue::try_from(from.to_string()) {
        headers.insert(FORWARDED_FOR, from);
    }
    if let Ok(host) = HeaderValue::try_from(host) {
        headers.insert(FORWARDED_HOST, host.clone());
        headers.insert(header::HOST, host);
    }
}
