//! What the edge knows of the cluster, and hears as it changes.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{BoxStream, select_all};
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::CLASS;
use super::gateway::Objects;
use super::gateway::kinds::{Gateway, GatewayClass, HTTPRoute, ListenerSet};

/// Waits as long before each attempt to watch, so that a kind that has just been defined is soon seen.
struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {}
}

pub(super) struct Cluster {
    pub(super) ingresses: Store<Ingress>,
    namespaces: Store<Namespace>,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    secrets: Store<Secret>,
    classes: Store<GatewayClass>,
    gateways: Store<Gateway>,
    sets: Store<ListenerSet>,
    routes: Store<HTTPRoute>,
}

impl Cluster {
    /// Whether everything that every cluster has is known.
    pub(super) fn is_synced(&self) -> bool {
        is_synced(&self.ingresses)
            && is_synced(&self.namespaces)
            && is_synced(&self.services)
            && is_synced(&self.slices)
            && is_synced(&self.secrets)
    }

    /// Gateway API is there, and our class is not.
    pub(super) fn lacks_class(&self) -> bool {
        is_synced(&self.classes) && !self.classes.state().iter().any(|class| class.name_any() == CLASS)
    }

    pub(super) fn objects(&self) -> Objects {
        Objects {
            classes: self.classes.state(),
            gateways: self.gateways.state(),
            sets: self.sets.state(),
            routes: self.routes.state(),
            namespaces: self.namespaces.state(),
            services: self.services.state(),
            slices: self.slices.state(),
            secrets: self.secrets.state(),
        }
    }
}

fn is_synced<K>(store: &Store<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    matches!(store.wait_until_ready().now_or_never(), Some(Ok(())))
}

/// What there is, and a stream that tells whenever it has changed.
pub(super) fn watch(client: &Client) -> (Cluster, impl Stream<Item = ()> + Send + Unpin + use<>) {
    let mut changes = Vec::new();
    let cluster = Cluster {
        ingresses: follow(client, watcher::Config::default(), &mut changes),
        namespaces: follow(client, watcher::Config::default(), &mut changes),
        services: follow(client, watcher::Config::default(), &mut changes),
        slices: follow(client, watcher::Config::default(), &mut changes),
        secrets: follow(client, watcher::Config::default().fields("type=kubernetes.io/tls"), &mut changes),
        classes: follow(client, watcher::Config::default(), &mut changes),
        gateways: follow(client, watcher::Config::default(), &mut changes),
        sets: follow(client, watcher::Config::default(), &mut changes),
        routes: follow(client, watcher::Config::default(), &mut changes),
    };
    (cluster, select_all(changes))
}

fn follow<K>(client: &Client, config: watcher::Config, changes: &mut Vec<BoxStream<'static, ()>>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(Api::<K>::all(client.clone()), config).backoff(Steady).reflect(writer);
    let heard = events.map(|event| match event {
        Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
            tracing::debug!("{} are not defined", K::plural(&()));
        }
        Err(error) => tracing::warn!("the edge's watch of {}: {error}", K::plural(&())),
        Ok(_) => {}
    });
    changes.push(heard.boxed());
    store
}
