//! An HTTPS edge on one loopback port, in the place of an ingress controller: it routes by the Ingresses of class
//! `testbed`, to the ready endpoints of their Services, with the certificates that they name.
//!
//! It differs from a real controller: `defaultBackend` and resource backends are ignored, `ImplementationSpecific`
//! paths are prefixes, and connections are not upgraded.

mod certificates;
mod routes;
mod status;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use futures::{FutureExt, Stream, StreamExt};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, header};
use http_body_util::Either;
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::forward::{Body, Target, forward};
use crate::serve::{Serving, answer, serve};
use certificates::{Certificates, Resolver};
use routes::Table;
use status::Statuses;

/// The ingress class that the edge serves.
pub const CLASS: &str = "testbed";

const SYNCED: Duration = Duration::from_secs(30);
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A running edge; it ends when dropped.
pub struct Edge {
    serving: Serving,
    _watching: AbortOnDropHandle<()>,
}

impl Edge {
    /// Creates the ingress class, and serves what the cluster has on a free loopback port, on the current tokio runtime,
    /// which `client` must belong to. It follows every change without being told.
    ///
    /// # Errors
    /// Where the API server does not answer, or the edge cannot listen.
    pub async fn start(client: Client) -> anyhow::Result<Self> {
        status::create_class(&client).await.context("create the ingress class")?;
        let resolver = Arc::new(Resolver::new()?);
        let table = Arc::new(ArcSwap::from_pointee(Table::default()));
        let routes = Arc::clone(&table);
        let turn = Arc::new(AtomicUsize::new(0));
        let serving = serve(Some(acceptor(Arc::clone(&resolver))?), move |request, from| {
            handle(request, from, routes.load_full(), turn.fetch_add(1, Ordering::Relaxed))
        })
        .await?;

        let (cluster, mut changes) = watch(&client);
        let mut statuses = Statuses::new(client, serving.address().port());
        let (synced, first) = tokio::sync::oneshot::channel();
        let watching = tokio::spawn(async move {
            let mut synced = Some(synced);
            while changes.next().await.is_some() {
                if !cluster.is_synced() {
                    continue;
                }
                let ingresses = cluster.ingresses.state();
                table.store(Arc::new(Table::new(&ingresses, &cluster.services.state(), &cluster.slices.state())));
                resolver.current.store(Arc::new(Certificates::new(&ingresses, &cluster.secrets.state())));
                if let Some(synced) = synced.take() {
                    let _ = synced.send(());
                }
                statuses.write(&ingresses).await;
            }
        });
        let watching = AbortOnDropHandle::new(watching);
        tokio::time::timeout(SYNCED, first).await.context("the edge did not learn the cluster's routes in time")??;
        Ok(Self { serving, _watching: watching })
    }

    /// Where it serves HTTPS, for every host.
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

/// What the edge knows of the cluster.
struct Cluster {
    ingresses: Store<Ingress>,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    secrets: Store<Secret>,
}

impl Cluster {
    fn is_synced(&self) -> bool {
        is_synced(&self.ingresses) && is_synced(&self.services) && is_synced(&self.slices) && is_synced(&self.secrets)
    }
}

fn is_synced<K>(store: &Store<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    matches!(store.wait_until_ready().now_or_never(), Some(Ok(())))
}

fn watch(client: &Client) -> (Cluster, impl Stream<Item = ()> + Send + Unpin + use<>) {
    let (ingresses, a) = follow(client, watcher::Config::default());
    let (services, b) = follow(client, watcher::Config::default());
    let (slices, c) = follow(client, watcher::Config::default());
    let (secrets, d) = follow(client, watcher::Config::default().fields("type=kubernetes.io/tls"));
    (Cluster { ingresses, services, slices, secrets }, futures::stream::select_all([a, b, c, d]))
}

fn follow<K>(client: &Client, config: watcher::Config) -> (Store<K>, futures::stream::BoxStream<'static, ()>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(Api::<K>::all(client.clone()), config).default_backoff().reflect(writer);
    let changes = events.map(|event| {
        if let Err(error) = event {
            tracing::warn!("the edge's watch of {}: {error}", K::plural(&()));
        }
    });
    (store, changes.boxed())
}

/// Takes the endpoints in turns, and the next where one cannot be reached.
async fn handle(mut request: Request<Incoming>, from: IpAddr, table: Arc<Table>, turn: usize) -> Response<Body> {
    let Some(host) = host(&request) else {
        return answer(StatusCode::BAD_REQUEST, "the request names no host");
    };
    let name = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let path = request.uri().path();
    let Some(backend) = table.route(&name, path) else {
        let why = format!("no Ingress of class {CLASS} has a rule for host {name} and path {path}");
        return answer(StatusCode::NOT_FOUND, why);
    };
    let whose = format!("Service {} of Ingress {}", backend.service, backend.ingress);
    if backend.targets.is_empty() {
        return answer(StatusCode::SERVICE_UNAVAILABLE, format!("{whose} has no ready endpoint"));
    }
    set_forwarded(request.headers_mut(), &host, from);
    match forward(request, in_turn(&backend.targets, turn)).await {
        Ok(response) => response.map(Either::Left),
        Err(error) => answer(StatusCode::BAD_GATEWAY, format!("{whose}: {error}")),
    }
}

fn in_turn(targets: &[Target], turn: usize) -> impl Iterator<Item = Target> {
    let first = turn.checked_rem(targets.len()).unwrap_or_default();
    targets.iter().copied().cycle().skip(first).take(targets.len())
}

/// As the client wrote it: in HTTP/2 the authority, else the Host header.
fn host<B>(request: &Request<B>) -> Option<String> {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let header = || request.headers().get(header::HOST)?.to_str().ok();
    authority.or_else(header).map(str::to_owned)
}

/// What the client says of itself is not to be believed: it is replaced.
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
