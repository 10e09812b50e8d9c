//! Objects to reconcile after a change of another object.

use std::sync::Arc;

use futures::{StreamExt, stream, stream::BoxStream};
use kube::{
    Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use mcp_entra_crds::{AuthorizationServer, McpRoleMapping, McpServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    objects::{
        child::ChildKind,
        config_map_edition::Edition,
        owner::Controller,
        views::{ChildView, Labelled},
    },
    watch::{
        gateways::GatewayView,
        stores::{Touched, WatchedMapping, WatchedNamespace, WatchedServer},
    },
};

/// Splits a stream into its objects and the references to other objects that they affect. Both parts must be polled:
/// the first waits until the references are taken.
pub(crate) fn concerning<K, T>(
    touched: Touched<K>,
    concerned: impl Fn(&K) -> Vec<ObjectRef<T>> + Send + 'static,
) -> (Touched<K>, BoxStream<'static, ObjectRef<T>>)
where
    K: Send + 'static,
    T: Resource<DynamicType = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel::<Vec<ObjectRef<T>>>(1);
    let touched = touched.then(move |touched| {
        let (found, sender) = (touched.as_ref().map(&concerned).unwrap_or_default(), sender.clone());
        async move {
            // No task receives them while the operator drains.
            sender.send(found).await.ok();
            touched
        }
    });
    (touched.boxed(), ReceiverStream::new(receiver).flat_map(stream::iter).boxed())
}

/// Returns the mappings in a server's namespace that can affect it: by its name, or by its present or former labels.
pub(crate) fn mappings_beside(
    mappings: &Store<WatchedMapping>,
    server: &WatchedServer,
) -> Vec<ObjectRef<WatchedMapping>> {
    let metadata = server.meta();
    mappings_of(
        mappings,
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Returns the mappings of a namespace that can affect the server of that name.
pub(crate) fn mappings_of(
    mappings: &Store<WatchedMapping>,
    namespace: &str,
    name: &str,
) -> Vec<ObjectRef<WatchedMapping>> {
    let chooses = |mapping: &McpRoleMapping| {
        mapping.spec.servers.names.as_ref().is_none_or(|names| names.iter().any(|named| named == name))
    };
    references(&mappings.state_filter(|mapping| {
        mapping.meta().namespace.as_deref() == Some(namespace) && mapping.0.as_ref().is_ok_and(chooses)
    }))
}

/// Returns the servers of a namespace after a change there that can affect any of them.
pub(crate) fn servers_beside<K: Resource>(servers: &Store<WatchedServer>, object: &K) -> Vec<ObjectRef<WatchedServer>> {
    let namespace = object.meta().namespace.as_deref();
    servers
        .state_filter(|server| server.meta().namespace.as_deref() == namespace)
        .iter()
        .map(|server| ObjectRef::from_obj(&**server))
        .collect()
}

/// Returns the servers of a namespace whose labels may have changed.
pub(crate) fn servers_in(
    servers: &Store<WatchedServer>,
    namespace: &WatchedNamespace,
) -> Vec<ObjectRef<WatchedServer>> {
    let name = namespace.metadata.name.as_deref();
    references(&servers.state_filter(|server| server.meta().namespace.as_deref() == name))
}

/// Returns references to objects of a store.
pub(crate) fn references<K: Resource<DynamicType = ()>>(objects: &[Arc<K>]) -> Vec<ObjectRef<K>> {
    objects.iter().map(|object| ObjectRef::from_obj(&**object)).collect()
}

/// Returns the servers that a ConfigMap affects: by a child's name, by its owner, or as CA certificates.
pub(crate) fn servers_of_config_map(
    servers: &Store<WatchedServer>,
    config_map: &ChildView,
) -> Vec<ObjectRef<WatchedServer>> {
    let (namespace, name) = (config_map.full_name.namespace(), config_map.name());
    servers
        .state_filter(|server| {
            server.meta().namespace.as_deref() == Some(namespace)
                && server.0.as_ref().is_ok_and(|server| {
                    let own = server.name_any();
                    let trust_bundle = server.spec.entra.trust_bundle.as_ref();
                    let store_ca = server.spec.authorization_server.as_ref().and_then(AuthorizationServer::store_ca);
                    let controller = config_map.controller.as_ref().and_then(Controller::server);
                    [ChildKind::Policy, ChildKind::Configuration]
                        .iter()
                        .any(|kind| Edition::of(*kind, &own, name).is_some())
                        || trust_bundle.is_some_and(|bundle| bundle.name == name)
                        || store_ca.is_some_and(|bundle| bundle.name == name)
                        || controller == Some(own.as_str())
                })
        })
        .iter()
        .map(|server| ObjectRef::from_obj(&**server))
        .collect()
}

/// Returns the servers whose exposure names a Gateway.
pub(crate) fn servers_of_gateway(
    servers: &Store<WatchedServer>,
    gateway: &GatewayView,
) -> Vec<ObjectRef<WatchedServer>> {
    let (namespace, name) = (gateway.namespace(), gateway.name_any());
    let names = |server: &McpServer| {
        let exposure = server.spec.exposure.as_ref().and_then(|exposure| exposure.gateway.as_ref());
        exposure
            .into_iter()
            .flat_map(|exposure| &exposure.parent_refs)
            .any(|parent| parent.name == name && parent.namespace.clone().or_else(|| server.namespace()) == namespace)
    };
    servers
        .state_filter(|server| server.0.as_ref().is_ok_and(names))
        .iter()
        .map(|server| ObjectRef::from_obj(&**server))
        .collect()
}

/// Returns the servers that are exposed at a Gateway.
pub(crate) fn servers_at_gateways(servers: &Store<WatchedServer>) -> Vec<ObjectRef<WatchedServer>> {
    let is_at_gateway = |server: &McpServer| server.spec.exposure.as_ref().is_some_and(|found| found.gateway.is_some());
    references(&servers.state_filter(|server| server.0.as_ref().is_ok_and(is_at_gateway)))
}

/// Returns the server that a labelled child belongs to.
pub(crate) fn server_of(child: &impl Labelled) -> Option<ObjectRef<WatchedServer>> {
    Some(ObjectRef::new(child.server()?).within(child.full_name().namespace()))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use kube::core::DeserializeGuard;

    use super::*;
    use crate::objects::fixtures::mk_server;

    fn mk_watched(name: &str, host: &str, client_id: &str) -> WatchedServer {
        let mut server = mk_server();
        server.metadata.name = Some(name.into());
        server.spec.exposure.as_mut().unwrap().host = host.into();
        server.spec.entra.client_id = client_id.into();
        DeserializeGuard(Ok(server))
    }

    #[tokio::test]
    async fn affected_objects_are_triggered_and_a_closed_receiver_stops_nothing() {
        let touched = || stream::iter(["a", "b"].map(|name| Ok(mk_watched(name, "h", "app")))).boxed();
        let twice = |server: &WatchedServer| vec![ObjectRef::<WatchedMapping>::new(&server.name_any()); 2];
        let (seen, told) = concerning(touched(), twice);
        let (seen, told) = tokio::join!(seen.try_collect::<Vec<_>>(), told.collect::<Vec<_>>());
        assert_eq!(seen.unwrap().iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(told.iter().map(|told| told.name.as_str()).collect::<Vec<_>>(), ["a", "a", "b", "b"]);
        let (seen, told) = concerning(touched(), twice);
        drop(told);
        assert_eq!(seen.count().await, 2);
    }
}
