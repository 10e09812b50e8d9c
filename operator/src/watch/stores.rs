//! The objects that the watches have seen. Each stream feeds a store, which passes read, and then the queue that starts
//! them: a pass never reads something older than what started it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, TryStreamExt, stream, stream::BoxStream};
use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope, api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{DeserializeGuard, DynamicResourceScope, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store, store::WriterDropped},
        watcher::{self, Event, watcher},
    },
};
use mcp_entra_crds::{ClusterMcpRoleMapping, McpRoleMapping, McpServer};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::{
    MANAGER,
    objects::{
        child::ChildKind,
        names::{MANAGED_BY, REQUESTS, SERVER_UID},
        observed_child::Seen,
        owner::Owner,
        untrusted_text::bounded,
        views::{ChildView, Labelled, PodView},
        watched::{WatchedChild, WatchedPod},
    },
    policy::binding::Labels,
    runtime::errors::Error,
    watch::{
        cache::{Cache, cache},
        discovery::Served,
        gateways::{GatewayClassView, GatewayView},
        scope::{Scope, Watched},
    },
};

/// The time for which the kinds of others are waited for at the start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Characters that are kept of an annotation.
const LONGEST_REQUEST: usize = 256;

/// An McpServer as watched: one that cannot be read must not stop the others.
pub(crate) type WatchedServer = DeserializeGuard<McpServer>;
/// An McpRoleMapping as watched.
pub(crate) type WatchedMapping = DeserializeGuard<McpRoleMapping>;
/// A ClusterMcpRoleMapping as watched.
pub(crate) type WatchedClusterMapping = DeserializeGuard<ClusterMcpRoleMapping>;
/// A namespace as watched: its labels, by which cluster mappings choose.
pub(crate) type WatchedNamespace = PartialObjectMeta<Namespace>;

/// The objects that the watches have seen.
pub(crate) struct World {
    pub(crate) servers: Store<WatchedServer>,
    pub(crate) mappings: Store<WatchedMapping>,
    pub(crate) cluster_mappings: Store<WatchedClusterMapping>,
    pub(crate) namespaces: Store<WatchedNamespace>,
    pub(crate) children: Children,
    pub(crate) pods: Cache<PodView>,
    /// Where TLS may end.
    pub(crate) gateways: Store<GatewayView>,
    pub(crate) gateway_classes: Store<GatewayClassView>,
    /// True if the Gateways have been listed since there is such a kind: before that, none seen is not none there.
    pub(crate) gateways_listed: Arc<AtomicBool>,
    /// Which of the kinds that others bring there are.
    pub(crate) served: watch::Receiver<Served>,
}

/// The watched children. Of ConfigMaps all are watched, since trust bundles are anybody's.
pub(crate) struct Children(BTreeMap<ChildKind, Cache<ChildView>>);

/// The children of one server, as watched.
pub(crate) type OwnChildren = BTreeMap<ChildKind, Arc<ChildView>>;

/// An object's every appearance, change and end.
pub(crate) type Touched<K> = BoxStream<'static, watcher::Result<K>>;

/// The streams that feed a [`World`]; each must be polled.
pub(crate) struct Streams {
    pub(crate) servers: Touched<WatchedServer>,
    pub(crate) mappings: Touched<WatchedMapping>,
    pub(crate) cluster_mappings: Touched<WatchedClusterMapping>,
    pub(crate) namespaces: Touched<WatchedNamespace>,
    pub(crate) config_maps: BoxStream<'static, Arc<ChildView>>,
    /// Every child but ConfigMaps.
    pub(crate) children: BoxStream<'static, Arc<ChildView>>,
    pub(crate) pods: BoxStream<'static, Arc<PodView>>,
    pub(crate) gateways: Touched<GatewayView>,
    pub(crate) gateway_classes: Touched<GatewayClassView>,
}

/// Watches everything that a pass over an McpServer depends on.
pub(crate) fn watch(client: &Client, scope: &Scope, served: watch::Receiver<Served>) -> (World, Streams) {
    let (servers, touched_servers) = store(client, scope);
    let (mappings, touched_mappings) = store(client, scope);
    let (cluster_mappings, touched_cluster_mappings) = cluster_store(client);
    let (namespaces, touched_namespaces) = cluster_store(client);
    let (pods, pod_feeder) = cache();
    let all = api_of::<WatchedPod>(client);
    let start = move |namespace: Option<&str>| views::<_, PodView>(watcher(all(namespace), ours()));
    let touched_pods = pod_feeder.follow("Pod", scope.watch(start, &pods));
    let mut children = BTreeMap::new();
    let mut touched_children = Vec::new();
    let mut config_maps = stream::empty().boxed();
    for kind in ChildKind::ALL.iter().copied().filter(|kind| kind.watched_as() == *kind) {
        let (kept, feeder) = cache();
        let events = while_served(kind, &served, watch_children(client, scope, kind, &kept));
        let touched = feeder.follow(kind.kind(), events);
        children.insert(kind, kept);
        if kind == ChildKind::Policy {
            config_maps = touched;
        } else {
            touched_children.push(touched);
        }
    }
    // Gateways come with the routes that refer to them, and may be in any namespace.
    let gateways_listed = Arc::<AtomicBool>::default();
    let api = Api::<GatewayView>::all(client.clone());
    let (gateways, touched_gateways) = store_of(|_| {
        let listed = gateways_listed.clone();
        while_served(ChildKind::HttpRoute, &served, move || {
            let listed = Listed(listed.clone());
            watcher(api.clone(), everything()).default_backoff().inspect_ok(move |event| listed.note(event))
        })
    });
    let api = Api::<GatewayClassView>::all(client.clone());
    let (gateway_classes, touched_gateway_classes) = store_of(|_| {
        while_served(ChildKind::HttpRoute, &served, move || watcher(api.clone(), everything()).default_backoff())
    });
    let world = World {
        servers,
        mappings,
        cluster_mappings,
        namespaces,
        children: Children(children),
        pods,
        gateways,
        gateway_classes,
        gateways_listed,
        served,
    };
    let streams = Streams {
        servers: touched_servers,
        mappings: touched_mappings,
        cluster_mappings: touched_cluster_mappings,
        namespaces: touched_namespaces,
        config_maps,
        children: stream::select_all(touched_children).boxed(),
        pods: touched_pods,
        gateways: touched_gateways,
        gateway_classes: touched_gateway_classes,
    };
    (world, streams)
}

/// The watch of a kind of child. ConfigMaps are watched whatever their labels. Of kinds that are read in part, the
/// metadata alone is watched.
fn watch_children(
    client: &Client,
    scope: &Scope,
    kind: ChildKind,
    kept: &Cache<ChildView>,
) -> impl Fn() -> BoxStream<'static, watcher::Result<Event<ChildView>>> + Send + 'static {
    let (client, scope, kept) = (client.clone(), scope.clone(), kept.clone());
    let config = if kind == ChildKind::Policy { everything() } else { ours() };
    let start = move |namespace: Option<&str>| match kind.is_read() {
        true => views(watcher(child_api::<WatchedChild>(&client, namespace, kind), config.clone())),
        false => views(watcher(child_api::<PartialObjectMeta<_>>(&client, namespace, kind), config.clone())),
    };
    move || scope.watch(&start, &kept)
}

fn child_api<K>(client: &Client, namespace: Option<&str>, kind: ChildKind) -> Api<K>
where
    K: Resource<DynamicType = ChildKind, Scope = DynamicResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    }
}

/// The events of a watch, with what is kept of its objects. It begins anew where it fails.
fn views<K, V: From<K>>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
) -> BoxStream<'static, watcher::Result<Event<V>>> {
    let view = |event| match event {
        Event::Apply(object) => Event::Apply(V::from(object)),
        Event::Delete(object) => Event::Delete(V::from(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(V::from(object)),
        Event::InitDone => Event::InitDone,
    };
    events.default_backoff().map_ok(view).boxed()
}

/// The API of a kind in a namespace, or in all.
fn api_of<K>(client: &Client) -> impl Fn(Option<&str>) -> Api<K> + Send + 'static
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let client = client.clone();
    move |namespace| match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Load balancers in front of API servers drop connections that were idle for 240 s; kube would ask for 290 s. What is
/// listed is kept in part only, so that large pages would be most of the memory.
fn everything() -> watcher::Config {
    watcher::Config::default().timeout(200).page_size(50)
}

fn ours() -> watcher::Config {
    everything().labels(&format!("{MANAGED_BY}={MANAGER}"))
}

/// Watches a kind while it is served; where it is not, there are none. A kind of Kubernetes' own always is.
fn while_served<S, K>(
    kind: ChildKind,
    served: &watch::Receiver<Served>,
    start: impl Fn() -> S + Send + 'static,
) -> BoxStream<'static, watcher::Result<watcher::Event<K>>>
where
    S: Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    K: Send + 'static,
{
    if kind.brought_by().is_none() {
        return start().boxed();
    }
    let has = move |served: &Served| served.as_ref().map(|served| served.contains(&kind));
    let mut last = None;
    let changes = WatchStream::new(served.clone()).filter_map(move |served| {
        let now = has(&served);
        let changed = now.filter(|_| now != last);
        last = now.or(last);
        std::future::ready(changed)
    });
    let served = served.clone();
    changes
        .map(move |is_served| {
            if !is_served {
                return stream::iter([Ok(watcher::Event::Init), Ok(watcher::Event::InitDone)]).boxed();
            }
            let mut served = served.clone();
            let gone = async move { served.wait_for(|served| has(served) == Some(false)).await.map(drop).ok() };
            start().take_until(Box::pin(gone)).boxed()
        })
        .flatten()
        .boxed()
}

/// Notes that a watch has listed all there is, as long as it runs.
struct Listed(Arc<AtomicBool>);

impl Listed {
    fn note<K>(&self, event: &Event<K>) {
        if matches!(event, Event::InitDone) {
            self.0.store(true, Ordering::Release);
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A store of the objects that are watched in these namespaces, and the stream of their changes.
fn store<K>(client: &Client, scope: &Scope) -> (Store<K>, Touched<K>)
where
    K: Watched<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let api = api_of(client);
    store_of(|seen| scope.watch(|namespace| watcher(api(namespace), everything()).default_backoff().boxed(), &seen))
}

/// A store of objects that are in no namespace, and the stream of their changes.
fn cluster_store<K>(client: &Client) -> (Store<K>, Touched<K>)
where
    K: Watched<DynamicType = (), Scope = ClusterResourceScope>,
{
    store_of(|_| watcher(Api::all(client.clone()), everything()).default_backoff())
}

/// The labels of a server's namespace, once they are known.
pub(crate) fn labels_of(namespaces: &Store<WatchedNamespace>, server: &ObjectMeta) -> Option<Labels> {
    let namespace = namespaces.get(&ObjectRef::new(server.namespace.as_deref()?))?;
    Some(namespace.labels().clone())
}

/// A watch that fails is tried again by itself; its error must not reach the controller, which would hold up all other
/// streams.
fn store_of<K, S>(events: impl FnOnce(Store<K>) -> S) -> (Store<K>, Touched<K>)
where
    K: Watched<DynamicType = ()>,
    S: Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
{
    let (reader, writer) = reflector::store();
    let touched = events(reader.clone())
        .modify(|object: &mut K| {
            object.managed_fields_mut().clear();
            // They can be large, and nothing reads others.
            object.annotations_mut().retain(|name, _| REQUESTS.contains(&name.as_str()));
            object.annotations_mut().values_mut().for_each(|value| *value = bounded(value, LONGEST_REQUEST));
        })
        .reflect(writer)
        .touched_objects()
        .filter_map(|touched| {
            let touched = touched
                .inspect_err(|error| {
                    tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and is started anew");
                })
                .ok();
            std::future::ready(touched.map(Ok))
        })
        .boxed();
    (reader, touched)
}

impl Children {
    /// The object that has a child's name, as far as its watch shows one: of any owner.
    pub(crate) fn get(&self, kind: ChildKind, owner: &Owner) -> Option<Arc<ChildView>> {
        self.named(kind, &owner.namespace, &kind.name(&owner.name))
    }

    /// All children of a server.
    pub(crate) fn of(&self, owner: &Owner) -> OwnChildren {
        let own = |kind: &ChildKind| self.get(*kind, owner).filter(|found| owner.owns(found.controller.as_ref()));
        ChildKind::ALL.iter().filter_map(|kind| Some((*kind, own(kind)?))).collect()
    }

    /// The children of a kind, of all servers.
    pub(crate) fn all(&self, kind: ChildKind) -> Vec<Arc<ChildView>> {
        self.filter(kind, |_| true)
    }

    /// The objects of a kind that are chosen, whosever they are.
    pub(crate) fn filter(&self, kind: ChildKind, choose: impl Fn(&ChildView) -> bool) -> Vec<Arc<ChildView>> {
        self.0.get(&kind.watched_as()).map(|all| all.filter(choose)).unwrap_or_default()
    }

    /// A ConfigMap of any name.
    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ChildView>> {
        self.named(ChildKind::Policy, namespace, name)
    }

    /// The object of a kind that has a name, of any owner.
    pub(crate) fn named(&self, kind: ChildKind, namespace: &str, name: &str) -> Option<Arc<ChildView>> {
        self.0.get(&kind.watched_as())?.get(namespace, name)
    }

    /// One child, and no other.
    #[cfg(test)]
    pub(crate) fn one(kind: ChildKind, child: ChildView) -> Self {
        Self::these([(kind, child)])
    }

    /// These children, and no others.
    #[cfg(test)]
    pub(crate) fn these(children: impl IntoIterator<Item = (ChildKind, ChildView)>) -> Self {
        let mut fed = BTreeMap::new();
        for (kind, child) in children {
            fed.entry(kind.watched_as()).or_insert_with(cache).1.feed(Event::Apply(child));
        }
        Self(fed.into_iter().map(|(kind, (kept, _))| (kind, kept)).collect())
    }

    /// No children at all, of no kind.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(BTreeMap::new())
    }
}

impl World {
    /// Waits until every store holds what there was at the start. To be awaited in the task that polls the streams, and
    /// there alone: of several tasks that wait for a store, kube wakes one. Passes wait at a
    /// [`crate::runtime::ready_gate::Gate`].
    pub(crate) async fn complete(&self) -> Result<(), Error> {
        let ended = |_: WriterDropped| Error::WatchesEnded;
        self.servers.wait_until_ready().await.map_err(ended)?;
        self.mappings.wait_until_ready().await.map_err(ended)?;
        self.cluster_mappings.wait_until_ready().await.map_err(ended)?;
        self.namespaces.wait_until_ready().await.map_err(ended)?;
        for (_, children) in self.children.0.iter().filter(|(kind, _)| kind.brought_by().is_none()) {
            children.complete().await?;
        }
        self.pods.complete().await?;
        // A kind of others that cannot be listed must hold up neither roll-outs nor revocations of all servers.
        let others = async {
            for (_, children) in self.children.0.iter().filter(|(kind, _)| kind.brought_by().is_some()) {
                children.complete().await?;
            }
            self.gateway_classes.wait_until_ready().await.map_err(ended)?;
            self.gateways.wait_until_ready().await.map_err(ended)
        };
        tokio::time::timeout(PATIENCE, others).await.unwrap_or(Ok(()))
    }

    /// A server by namespace and name.
    pub(crate) fn server(&self, namespace: &str, name: &str) -> Option<Arc<WatchedServer>> {
        self.servers.get(&ObjectRef::new(name).within(namespace))
    }

    /// The Deployment of a server.
    pub(crate) fn deployment_of(&self, owner: &Owner) -> Option<Arc<ChildView>> {
        let found = self.children.get(ChildKind::Deployment, owner)?;
        owner.owns(found.controller.as_ref()).then_some(found)
    }

    /// The pods of a server, by name: those of its very own and of its adopted Deployment, not of a namesake or of
    /// somebody who borrows its labels.
    pub(crate) fn pods_of(&self, owner: &Owner) -> Vec<Arc<PodView>> {
        let deployment = self.children.get(ChildKind::Deployment, owner);
        let deployment = deployment.filter(|found| Seen::watched(found, owner).is_for_us());
        let adopted = deployment.as_ref().and_then(|found| found.annotation(SERVER_UID));
        let is_own = |pod: &PodView| {
            let uid = pod.server_uid.as_deref();
            let is_adopted = uid.is_some() && uid == adopted && pod.server() == Some(&owner.name);
            (uid == Some(&owner.uid) || is_adopted) && pod.full_name.namespace() == owner.namespace
        };
        let mut pods = self.pods.filter(is_own);
        pods.sort_by(|one, other| one.name().cmp(other.name()));
        pods
    }

    /// The kinds, of these, that this cluster lacks, or does not show: where the Gateways are not known, routes to them
    /// are neither made nor taken away.
    pub(crate) fn missing(&self, kinds: impl IntoIterator<Item = ChildKind>) -> BTreeSet<ChildKind> {
        let served = self.served.borrow();
        let is_shown = |kind: &ChildKind| *kind != ChildKind::HttpRoute || self.gateways_listed.load(Ordering::Acquire);
        let is_served =
            |kind: &ChildKind| served.as_ref().is_some_and(|served| served.contains(kind)) && is_shown(kind);
        kinds.into_iter().filter(|kind| kind.brought_by().is_some() && !is_served(kind)).collect()
    }
}
