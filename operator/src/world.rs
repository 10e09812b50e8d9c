//! What the watches have seen. Each stream feeds a store, which passes read, and then the queue that starts them: a
//! pass never reads something older than what started it.

use std::{fmt::Debug, sync::Arc};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store, store::WriterDropped},
        watcher::{self, watcher},
    },
};
use mcp_entra_crds::{McpRoleMapping, McpServer};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{
    MANAGER, claims,
    errors::Error,
    owner::{ChildKind, INSTANCE, MANAGED_BY, Owner, SERVER_UID},
    views::{DeploymentView, IngressView, PodView},
};

/// An McpServer as watched: one that cannot be read must not stop the others.
pub(crate) type WatchedServer = DeserializeGuard<McpServer>;
/// An McpRoleMapping as watched.
pub(crate) type WatchedMapping = DeserializeGuard<McpRoleMapping>;

/// What the watches have seen.
pub(crate) struct World {
    pub(crate) servers: Store<WatchedServer>,
    pub(crate) mappings: Store<WatchedMapping>,
    /// Of all ConfigMaps, since trust bundles are anybody's; metadata only.
    pub(crate) config_maps: Store<PartialObjectMeta<ConfigMap>>,
    pub(crate) service_accounts: Store<PartialObjectMeta<ServiceAccount>>,
    pub(crate) services: Store<PartialObjectMeta<Service>>,
    pub(crate) deployments: Store<DeploymentView>,
    pub(crate) ingresses: Store<IngressView>,
    pub(crate) pods: Store<PodView>,
}

/// An object's every appearance, change and end.
pub(crate) type Touched<K> = BoxStream<'static, watcher::Result<K>>;

/// The streams that feed a [`World`]; each must be polled.
pub(crate) struct Streams {
    pub(crate) servers: Touched<WatchedServer>,
    pub(crate) mappings: Touched<WatchedMapping>,
    pub(crate) config_maps: Touched<PartialObjectMeta<ConfigMap>>,
    pub(crate) service_accounts: Touched<PartialObjectMeta<ServiceAccount>>,
    pub(crate) services: Touched<PartialObjectMeta<Service>>,
    pub(crate) deployments: Touched<DeploymentView>,
    pub(crate) ingresses: Touched<IngressView>,
    pub(crate) pods: Touched<PodView>,
}

/// Watches everything that a pass over an McpServer depends on.
pub(crate) fn watch(client: &Client) -> (World, Streams) {
    let (servers, touched_servers) = store(client, everything());
    let (mappings, touched_mappings) = store(client, everything());
    let (config_maps, touched_config_maps) = store(client, everything());
    let (service_accounts, touched_service_accounts) = store(client, ours());
    let (services, touched_services) = store(client, ours());
    let (deployments, touched_deployments) = store(client, ours());
    let (ingresses, touched_ingresses) = store(client, ours());
    let (pods, touched_pods) = store(client, ours());
    let world = World { servers, mappings, config_maps, service_accounts, services, deployments, ingresses, pods };
    let streams = Streams {
        servers: touched_servers,
        mappings: touched_mappings,
        config_maps: touched_config_maps,
        service_accounts: touched_service_accounts,
        services: touched_services,
        deployments: touched_deployments,
        ingresses: touched_ingresses,
        pods: touched_pods,
    };
    (world, streams)
}

/// Load balancers in front of API servers drop connections that were idle for 240 s; kube would ask for 290 s.
pub(crate) fn everything() -> watcher::Config {
    watcher::Config::default().timeout(200)
}

fn ours() -> watcher::Config {
    everything().labels(&format!("{MANAGED_BY}={MANAGER}"))
}

/// A store of watched objects, and the stream of their changes. A watch that fails is tried again by itself; its error
/// must not reach the controller, which would hold up all other streams.
pub(crate) fn store<K>(client: &Client, config: watcher::Config) -> (Store<K>, Touched<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let touched = watcher(Api::all(client.clone()), config)
        .default_backoff()
        .modify(|object: &mut K| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .filter_map(|touched| async {
            touched
                .inspect_err(|error| tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and is started anew"))
                .ok()
                .map(Ok)
        })
        .boxed();
    (reader, touched)
}

impl World {
    /// Waits until every store holds what there was at the start. To be awaited in the task that polls the streams, and
    /// there alone: of several tasks that wait for a store, kube wakes one. Passes wait at a [`Gate`].
    pub(crate) async fn complete(&self) -> Result<(), WriterDropped> {
        self.servers.wait_until_ready().await?;
        self.mappings.wait_until_ready().await?;
        self.config_maps.wait_until_ready().await?;
        self.service_accounts.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.deployments.wait_until_ready().await?;
        self.ingresses.wait_until_ready().await?;
        self.pods.wait_until_ready().await
    }

    /// The mappings of a namespace.
    pub(crate) fn mappings_of(&self, namespace: &str) -> Vec<Arc<WatchedMapping>> {
        self.mappings.state_filter(|mapping| mapping.namespace().as_deref() == Some(namespace))
    }

    /// The pods of a server, by name: those of its very own, not of a namesake or of somebody who borrows its labels.
    pub(crate) fn pods_of(&self, owner: &Owner) -> Vec<Arc<PodView>> {
        let mut pods = self.pods.state_filter(|pod| {
            pod.metadata.namespace.as_ref() == Some(&owner.namespace)
                && pod.annotations().get(SERVER_UID) == Some(&owner.uid)
        });
        pods.sort_by_key(|pod| pod.name_any());
        pods
    }

    /// The Deployment of a server.
    pub(crate) fn deployment_of(&self, owner: &Owner) -> Option<Arc<DeploymentView>> {
        own(&self.deployments, owner, ChildKind::Deployment)
    }

    /// The Ingress of a server.
    pub(crate) fn ingress_of(&self, owner: &Owner) -> Option<Arc<IngressView>> {
        own(&self.ingresses, owner, ChildKind::Ingress)
    }
}

fn own<K>(store: &Store<K>, owner: &Owner, kind: ChildKind) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let found = store.get(&ObjectRef::new(&kind.name(&owner.name)).within(&owner.namespace))?;
    owner.owns(found.meta()).then_some(found)
}

/// Opens once every store holds what there was at the start: a policy compiled of half the mappings would revoke the
/// other half.
#[derive(Clone, Debug)]
pub(crate) struct Gate(watch::Receiver<bool>);

impl Gate {
    /// A closed gate, and what opens it.
    pub(crate) fn closed() -> (watch::Sender<bool>, Self) {
        let (opener, gate) = watch::channel(false);
        (opener, Self(gate))
    }

    /// Waits until it is open.
    pub(crate) async fn passed(&self) -> Result<(), Error> {
        self.0.clone().wait_for(|open| *open).await.map(drop).map_err(|_| Error::WatchesEnded)
    }

    /// Whether it is open.
    pub(crate) fn is_open(&self) -> bool {
        *self.0.borrow()
    }
}

/// The servers of a namespace, to be reconciled because something there changed that any of them may depend on.
pub(crate) fn servers_beside<K: Resource>(servers: &Store<WatchedServer>, object: &K) -> Vec<ObjectRef<WatchedServer>> {
    let namespace = object.meta().namespace.as_deref();
    servers
        .state_filter(|server| server.meta().namespace.as_deref() == namespace)
        .iter()
        .map(|server| ObjectRef::from_obj(&**server))
        .collect()
}

/// A server that was touched, and those that may now hold or lose what they claim, too.
pub(crate) fn with_rivals(servers: &Store<WatchedServer>, touched: WatchedServer) -> Vec<WatchedServer> {
    let rivals = touched.0.as_ref().map_or_else(
        |_| Vec::new(),
        |touched| servers.state_filter(|other| other.0.as_ref().is_ok_and(|other| claims::are_rivals(touched, other))),
    );
    std::iter::once(touched).chain(rivals.iter().map(|rival| (**rival).clone())).collect()
}

/// The servers to which a ConfigMap matters: by the name of a child, or as their trust bundle.
pub(crate) fn servers_of_config_map(
    servers: &Store<WatchedServer>,
    config_map: &PartialObjectMeta<ConfigMap>,
) -> Vec<ObjectRef<WatchedServer>> {
    let (namespace, name) = (config_map.namespace(), config_map.name_any());
    servers
        .state_filter(|server| {
            server.meta().namespace == namespace
                && server.0.as_ref().is_ok_and(|server| {
                    let own = server.name_any();
                    let trust_bundle = server.spec.entra.trust_bundle.as_ref();
                    name == ChildKind::Policy.name(&own)
                        || name == ChildKind::Configuration.name(&own)
                        || trust_bundle.is_some_and(|bundle| bundle.name == name)
                })
        })
        .iter()
        .map(|server| ObjectRef::from_obj(&**server))
        .collect()
}

/// The server to which a labelled child belongs.
pub(crate) fn server_of<K: Resource>(child: &K) -> Option<ObjectRef<WatchedServer>> {
    let instance = child.labels().get(INSTANCE)?;
    Some(ObjectRef::new(instance).within(child.meta().namespace.as_deref()?))
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;
    use crate::validate::tests::mk_server;

    #[test]
    fn a_touched_server_brings_those_that_share_its_host_or_client_id_though_it_is_gone_itself() {
        let (store, mut writer) = reflector::store();
        for (name, host, client_id) in [("host", "h", "other"), ("app", "other", "a"), ("neither", "i", "b")] {
            writer.apply_watcher_event(&watcher::Event::Apply(mk_watched(name, host, client_id)));
        }
        let touched = with_rivals(&store, mk_watched("touched", "h", "a"));
        assert_eq!(touched[0].name_any(), "touched");
        let mut rivals: Vec<String> = touched[1..].iter().map(ResourceExt::name_any).collect();
        rivals.sort();
        assert_eq!(rivals, ["app", "host"]);
    }

    fn mk_watched(name: &str, host: &str, client_id: &str) -> WatchedServer {
        let mut server = mk_server();
        server.metadata.name = Some(name.into());
        server.spec.exposure.as_mut().unwrap().host = host.into();
        server.spec.entra.client_id = client_id.into();
        DeserializeGuard(Ok(server))
    }

    #[tokio::test]
    async fn everyone_who_waits_at_the_gate_is_let_through_and_nobody_before_it_opens() {
        let (opener, gate) = Gate::closed();
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.passed().await.is_ok() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(!gate.is_open() && waiting.iter().all(|waiter| !waiter.is_finished()));
        opener.send_replace(true);
        assert!(join_all(waiting).await.into_iter().all(|passed| passed.unwrap()));
    }

    #[tokio::test]
    async fn a_gate_that_will_never_open_is_an_error() {
        let (opener, gate) = Gate::closed();
        drop(opener);
        assert!(matches!(gate.passed().await, Err(Error::WatchesEnded)));
    }
}
