//! Stores of all watched objects. Each stream updates its store before it triggers passes, so a pass never reads a
//! version older than its trigger.

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

/// The longest wait for third-party kinds at the start.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most characters that are kept of an annotation's value.
const LONGEST_REQUEST: usize = 256;

/// A watched McpServer. One that cannot be deserialised does not stop the others.
pub(crate) type WatchedServer = DeserializeGuard<McpServer>;
/// A watched McpRoleMapping.
pub(crate) type WatchedMapping = DeserializeGuard<McpRoleMapping>;
/// A watched ClusterMcpRoleMapping.
pub(crate) type WatchedClusterMapping = DeserializeGuard<ClusterMcpRoleMapping>;
/// The metadata of a watched namespace. Cluster mappings select by its labels.
pub(crate) type WatchedNamespace = PartialObjectMeta<Namespace>;

/// The caches of all watched objects.
pub(crate) struct World {
    pub(crate) servers: Store<WatchedServer>,
    pub(crate) mappings: Store<WatchedMapping>,
    pub(crate) cluster_mappings: Store<WatchedClusterMapping>,
    pub(crate) namespaces: Store<WatchedNamespace>,
    pub(crate) children: Children,
    pub(crate) pods: Cache<PodView>,
    /// Gateways, which can terminate TLS.
    pub(crate) gateways: Store<GatewayView>,
    pub(crate) gateway_classes: Store<GatewayClassView>,
    /// True once the Gateways have been listed. Before that, an empty store does not mean that there are none.
    pub(crate) gateways_listed: Arc<AtomicBool>,
    /// The third-party kinds that the cluster serves.
    pub(crate) served: watch::Receiver<Served>,
}

/// The watched children. All ConfigMaps are watched, because trust bundles can belong to anybody.
pub(crate) struct Children(BTreeMap<ChildKind, Cache<ChildView>>);

/// The cached children of one server.
pub(crate) type OwnChildren = BTreeMap<ChildKind, Arc<ChildView>>;

/// A stream of all created, changed and deleted objects.
pub(crate) type Touched<K> = BoxStream<'static, watcher::Result<K>>;

/// The streams that update a [`World`]. Each one must be polled.
pub(crate) struct Streams {
    pub(crate) servers: Touched<WatchedServer>,
    pub(crate) mappings: Touched<WatchedMapping>,
    pub(crate) cluster_mappings: Touched<WatchedClusterMapping>,
    pub(crate) namespaces: Touched<WatchedNamespace>,
    pub(crate) config_maps: BoxStream<'static, Arc<ChildView>>,
    /// All children except ConfigMaps.
    pub(crate) children: BoxStream<'static, Arc<ChildView>>,
    pub(crate) pods: BoxStream<'static, Arc<PodView>>,
    pub(crate) gateways: Touched<GatewayView>,
    pub(crate) gateway_classes: Touched<GatewayClassView>,
}

/// Starts all watches that a pass over an McpServer depends on.
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
    // Gateways are served together with routes, and can be in any namespace.
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

/// Returns the watch of a kind of child. ConfigMaps are watched regardless of their labels. Other kinds of which only
/// metadata is used are watched as metadata.
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

/// Converts the objects of a watch to views. A failed watch restarts by itself.
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

/// Returns a function that makes the API of a kind, in one namespace or in all.
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

/// Returns the configuration of all watches. Load balancers in front of API servers drop connections after 240 s
/// without traffic, and kube's default is 290 s. Only parts of the objects are kept, so large pages would take most of
/// the memory.
fn everything() -> watcher::Config {
    watcher::Config::default().timeout(200).page_size(50)
}

fn ours() -> watcher::Config {
    everything().labels(&format!("{MANAGED_BY}={MANAGER}"))
}

/// Watches a kind while the cluster serves it, and yields an empty list otherwise. Built-in kinds are always served.
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

/// Records that a running watch has listed all objects.
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

/// Returns a store of the objects in the scope, and the stream of their changes.
fn store<K>(client: &Client, scope: &Scope) -> (Store<K>, Touched<K>)
where
    K: Watched<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let api = api_of(client);
    store_of(|seen| scope.watch(|namespace| watcher(api(namespace), everything()).default_backoff().boxed(), &seen))
}

/// Returns a store of cluster-scoped objects, and the stream of their changes.
fn cluster_store<K>(client: &Client) -> (Store<K>, Touched<K>)
where
    K: Watched<DynamicType = (), Scope = ClusterResourceScope>,
{
    store_of(|_| watcher(Api::all(client.clone()), everything()).default_backoff())
}

/// Returns the labels of a server's namespace, once they are known.
pub(crate) fn labels_of(namespaces: &Store<WatchedNamespace>, server: &ObjectMeta) -> Option<Labels> {
    let namespace = namespaces.get(&ObjectRef::new(server.namespace.as_deref()?))?;
    Some(namespace.labels().clone())
}

/// Builds a store from a watch. A failed watch restarts by itself. Its error must not reach the controller, which would
/// block all other streams.
fn store_of<K, S>(events: impl FnOnce(Store<K>) -> S) -> (Store<K>, Touched<K>)
where
    K: Watched<DynamicType = ()>,
    S: Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
{
    let (reader, writer) = reflector::store();
    let touched = events(reader.clone())
        .modify(|object: &mut K| {
            object.managed_fields_mut().clear();
            // Values can be large, and other annotations are never read.
            object.annotations_mut().retain(|name, _| REQUESTS.contains(&name.as_str()));
            object.annotations_mut().values_mut().for_each(|value| *value = bounded(value, LONGEST_REQUEST));
        })
        .reflect(writer)
        .touched_objects()
        .filter_map(|touched| {
            let touched = touched
                .inspect_err(|error| {
                    tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and restarts");
                })
                .ok();
            std::future::ready(touched.map(Ok))
        })
        .boxed();
    (reader, touched)
}

impl Children {
    /// Returns the cached object with a child's name, of any owner.
    pub(crate) fn get(&self, kind: ChildKind, owner: &Owner) -> Option<Arc<ChildView>> {
        self.named(kind, &owner.namespace, &kind.name(&owner.name))
    }

    /// Returns all children of a server.
    pub(crate) fn of(&self, owner: &Owner) -> OwnChildren {
        let own = |kind: &ChildKind| self.get(*kind, owner).filter(|found| owner.owns(found.controller.as_ref()));
        ChildKind::ALL.iter().filter_map(|kind| Some((*kind, own(kind)?))).collect()
    }

    /// Returns the children of a kind, of all servers.
    pub(crate) fn all(&self, kind: ChildKind) -> Vec<Arc<ChildView>> {
        self.filter(kind, |_| true)
    }

    /// Returns the objects of a kind for which `choose` is true, of any owner.
    pub(crate) fn filter(&self, kind: ChildKind, choose: impl Fn(&ChildView) -> bool) -> Vec<Arc<ChildView>> {
        self.0.get(&kind.watched_as()).map(|all| all.filter(choose)).unwrap_or_default()
    }

    /// Returns a ConfigMap by name.
    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ChildView>> {
        self.named(ChildKind::Policy, namespace, name)
    }

    /// Returns an object of a kind by name, of any owner.
    pub(crate) fn named(&self, kind: ChildKind, namespace: &str, name: &str) -> Option<Arc<ChildView>> {
        self.0.get(&kind.watched_as())?.get(namespace, name)
    }

    /// Returns children with a single entry.
    #[cfg(test)]
    pub(crate) fn one(kind: ChildKind, child: ChildView) -> Self {
        Self::these([(kind, child)])
    }

    /// Returns exactly these children.
    #[cfg(test)]
    pub(crate) fn these(children: impl IntoIterator<Item = (ChildKind, ChildView)>) -> Self {
        let mut fed = BTreeMap::new();
        for (kind, child) in children {
            fed.entry(kind.watched_as()).or_insert_with(cache).1.feed(Event::Apply(child));
        }
        Self(fed.into_iter().map(|(kind, (kept, _))| (kind, kept)).collect())
    }

    /// Returns no children of any kind.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(BTreeMap::new())
    }
}

impl World {
    /// Waits until every store holds the objects that existed at the start. Call it only in the task that polls the
    /// streams: kube wakes only one of several tasks that wait for a store. Passes wait at a
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
        // A third-party kind that cannot be listed must not block rollouts or revocations of all servers.
        let others = async {
            for (_, children) in self.children.0.iter().filter(|(kind, _)| kind.brought_by().is_some()) {
                children.complete().await?;
            }
            self.gateway_classes.wait_until_ready().await.map_err(ended)?;
            self.gateways.wait_until_ready().await.map_err(ended)
        };
        tokio::time::timeout(PATIENCE, others).await.unwrap_or(Ok(()))
    }

    /// Returns a server by namespace and name.
    pub(crate) fn server(&self, namespace: &str, name: &str) -> Option<Arc<WatchedServer>> {
        self.servers.get(&ObjectRef::new(name).within(namespace))
    }

    /// Returns the Deployment of a server.
    pub(crate) fn deployment_of(&self, owner: &Owner) -> Option<Arc<ChildView>> {
        let found = self.children.get(ChildKind::Deployment, owner)?;
        owner.owns(found.controller.as_ref()).then_some(found)
    }

    /// Returns the pods of a server, sorted by name. It includes pods of an adopted Deployment, and excludes pods of a
    /// namesake or with copied labels.
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

    /// Returns the kinds, among these, that the cluster does not serve or does not show. While Gateways are unknown,
    /// routes to them are neither created nor deleted.
    pub(crate) fn missing(&self, kinds: impl IntoIterator<Item = ChildKind>) -> BTreeSet<ChildKind> {
        let served = self.served.borrow();
        let is_shown = |kind: &ChildKind| *kind != ChildKind::HttpRoute || self.gateways_listed.load(Ordering::Acquire);
        let is_served =
            |kind: &ChildKind| served.as_ref().is_some_and(|served| served.contains(kind)) && is_shown(kind);
        kinds.into_iter().filter(|kind| kind.brought_by().is_some() && !is_served(kind)).collect()
    }
}
