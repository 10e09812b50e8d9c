//! Cache of claims by name, and the servers to reconcile when a claim changes.

use std::{collections::HashMap, sync::Arc};

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store},
        watcher::{self, Event, watcher},
    },
};

use super::claim::{Claim, ClaimedValue, Holder, demands};
use crate::{
    objects::{
        full_name::{FullName, Kept},
        names::CLAIM,
    },
    runtime::errors::Error,
    watch::{
        cache::{Cache, Feeder, cache},
        stores::WatchedServer,
    },
};

/// The key of a claim in its ConfigMap.
pub(super) const CLAIM_KEY: &str = "claim.json";

/// A claim as it was read.
#[derive(Clone, Debug)]
pub(crate) struct ClaimView {
    full_name: FullName,
    pub(super) uid: Option<String>,
    pub(super) version: Option<String>,
    /// The claim; none if the ConfigMap does not contain a claim on the value in its name.
    pub(crate) claim: Option<Claim>,
}

impl ClaimView {
    pub(super) fn name(&self) -> &str {
        self.full_name.name()
    }
}

impl From<ConfigMap> for ClaimView {
    fn from(object: ConfigMap) -> Self {
        let read = |data: &String| serde_json::from_str::<Claim>(data).ok();
        let claim = object.data.as_ref().and_then(|data| data.get(CLAIM_KEY)).and_then(read);
        let is_of_its_name =
            |claim: &Claim| object.name_any() == claim.claimed.object_name() && !claim.holders.is_empty();
        let claim = claim.filter(is_of_its_name);
        Self {
            full_name: FullName::of(&object.metadata),
            uid: object.metadata.uid,
            version: object.metadata.resource_version,
            claim,
        }
    }
}

impl Kept for ClaimView {
    fn full_name(&self) -> &FullName {
        &self.full_name
    }
}

/// All claims by their value.
#[derive(Clone)]
pub(crate) struct Claims {
    /// The operator's namespace.
    namespace: String,
    seen: Cache<ClaimView>,
}

impl Claims {
    pub(crate) fn empty(namespace: &str) -> (Self, Feeder<ClaimView>) {
        let (seen, feeder) = cache();
        (Self { namespace: namespace.to_owned(), seen }, feeder)
    }

    /// Returns the claim on a value.
    pub(crate) fn get(&self, claimed: &ClaimedValue) -> Option<Arc<ClaimView>> {
        self.seen.get(&self.namespace, &claimed.object_name())
    }

    pub(super) fn all(&self) -> Vec<Arc<ClaimView>> {
        self.seen.filter(|_| true)
    }

    /// Waits until all claims have been listed.
    pub(crate) async fn complete(&self) -> Result<(), Error> {
        self.seen.complete().await
    }
}

/// A claim before and after a change.
pub(crate) struct Change {
    pub(super) before: Option<Arc<ClaimView>>,
    pub(super) after: Option<Arc<ClaimView>>,
}

/// Watches the claims in the operator's namespace.
pub(crate) fn watch(client: &Client, namespace: &str) -> (Claims, BoxStream<'static, Change>) {
    let (claims, feeder) = Claims::empty(namespace);
    let config = watcher::Config::default().timeout(200).page_size(50).labels(CLAIM);
    let events = watcher(Api::<ConfigMap>::namespaced(client.clone(), namespace), config).default_backoff();
    let views = events.map(|event| {
        event.map(|event| match event {
            Event::Apply(object) => Event::Apply(object.into()),
            Event::Delete(object) => Event::Delete(object.into()),
            Event::Init => Event::Init,
            Event::InitApply(object) => Event::InitApply(object.into()),
            Event::InitDone => Event::InitDone,
        })
    });
    let changes = changes(claims.clone(), feeder.follow("claim", views));
    (claims, changes)
}

fn changes(claims: Claims, touched: impl Stream<Item = Arc<ClaimView>> + Send + 'static) -> BoxStream<'static, Change> {
    let mut known = HashMap::<String, Arc<ClaimView>>::new();
    touched
        .map(move |touched| {
            let after = claims.seen.get(&claims.namespace, touched.name());
            let before = match &after {
                Some(after) => known.insert(touched.name().to_owned(), after.clone()),
                None => known.remove(touched.name()),
            };
            Change { before, after }
        })
        .boxed()
}

/// Returns the servers that a change of a claim affects. A new holder of a value changes nothing for the others.
pub(crate) fn concerned(servers: &Store<WatchedServer>, change: &Change) -> Vec<ObjectRef<WatchedServer>> {
    let claim = |view: &Option<Arc<ClaimView>>| view.as_ref().and_then(|view| view.claim.clone());
    // Servers that wait for an unclaimed value look again by themselves.
    let (Some(before), after) = (claim(&change.before), claim(&change.after)) else { return Vec::new() };
    let is_kept = |holder: &Holder| after.as_ref().is_some_and(|after| after.holders.contains(holder));
    if before.holders.iter().all(is_kept) {
        return Vec::new();
    }
    let names = |server: &WatchedServer| {
        server.0.as_ref().is_ok_and(|server| demands(server).iter().any(|demand| demand.claimed == before.claimed))
    };
    servers.state_filter(|server| names(server)).iter().map(|server| ObjectRef::from_obj(&**server)).collect()
}

/// Returns a stream of the servers that changed claims affect.
pub(crate) fn wakes(
    servers: Store<WatchedServer>,
    changes: BoxStream<'static, Change>,
) -> BoxStream<'static, ObjectRef<WatchedServer>> {
    changes.flat_map(move |change| stream::iter(concerned(&servers, &change))).boxed()
}
