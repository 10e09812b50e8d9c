//! State of the cluster that the edge watches.

use futures::Stream;
use futures::stream::select_all;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};

use super::CLASS;
use super::gateway::Objects;
use super::gateway::kinds::{Gateway, GatewayClass, HTTPRoute, ListenerSet};
use crate::controller::{follow, is_synced};

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
    /// Returns whether all built-in kinds are known.
    pub(super) fn is_synced(&self) -> bool {
        is_synced(&self.ingresses)
            && is_synced(&self.namespaces)
            && is_synced(&self.services)
            && is_synced(&self.slices)
            && is_synced(&self.secrets)
    }

    /// Returns whether Gateway API is defined and our class is missing.
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

/// Starts to watch, and returns the state and a stream with an item for each change.
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
