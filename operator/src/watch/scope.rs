//! Namespaces that the operator watches and writes in: all, or a list whose watches are merged into one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt, stream, stream::BoxStream};
use kube::{
    Resource, ResourceExt,
    runtime::{
        reflector::Store,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;

use crate::{objects::full_name::Kept, watch::cache::Cache};

/// The watched namespaces. An empty set means all namespaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope(BTreeSet<String>);

impl Scope {
    pub(crate) fn of(namespaces: &[String]) -> Self {
        Self(namespaces.iter().cloned().collect())
    }

    pub(crate) fn is_everywhere(&self) -> bool {
        self.0.is_empty()
    }

    /// Watches a kind in the scope. `start` begins the watch of one namespace or of all; `seen` is the cache that the
    /// events update.
    pub(crate) fn watch<K: Send + 'static>(
        &self,
        start: impl Fn(Option<&str>) -> BoxStream<'static, watcher::Result<Event<K>>>,
        seen: &(impl Showing<K> + Clone),
    ) -> BoxStream<'static, watcher::Result<Event<K>>> {
        if self.is_everywhere() {
            return start(None);
        }
        let tagged = |namespace: &String| {
            let tag = namespace.clone();
            start(Some(namespace)).map(move |event| (tag.clone(), event)).boxed()
        };
        let (mut merged, seen) = (Merged::new(&self.0), seen.clone());
        stream::select_all(self.0.iter().map(tagged))
            .flat_map(move |(namespace, event)| {
                let events = match event {
                    Ok(event) => merged.take(&namespace, event, &seen).into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                };
                stream::iter(events)
            })
            .boxed()
    }
}

/// An object that can be watched.
pub(crate) trait Watched: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static {}

impl<K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static> Watched for K {}

/// A cache that returns its objects.
pub(crate) trait Showing<K>: Send + 'static {
    fn name(object: &K) -> String;

    /// Returns all cached objects of a namespace.
    fn shown(&self, namespace: &str) -> Vec<K>;
}

impl<K: Watched<DynamicType = ()>> Showing<K> for Store<K> {
    fn name(object: &K) -> String {
        object.name_any()
    }

    fn shown(&self, namespace: &str) -> Vec<K> {
        let shown = self.state_filter(|object| object.meta().namespace.as_deref() == Some(namespace));
        shown.into_iter().map(Arc::unwrap_or_clone).collect()
    }
}

impl<V: Kept> Showing<V> for Cache<V> {
    fn name(object: &V) -> String {
        object.full_name().name().to_owned()
    }

    fn shown(&self, namespace: &str) -> Vec<V> {
        let shown = self.filter(|object| object.full_name().namespace() == namespace);
        shown.into_iter().map(Arc::unwrap_or_clone).collect()
    }
}

/// The watches of several namespaces, merged into one. It begins when each namespace has been listed. A namespace that
/// is listed again yields only changes and deletions.
struct Merged<K> {
    /// Namespaces that are not listed yet. No event is passed on while there is one.
    unlisted: BTreeSet<String>,
    has_begun: bool,
    /// Objects of unfinished lists and objects that are held back, by namespace and name.
    listed: BTreeMap<String, BTreeMap<String, K>>,
}

impl<K> Merged<K> {
    fn new(namespaces: &BTreeSet<String>) -> Self {
        Self { unlisted: namespaces.clone(), has_begun: false, listed: BTreeMap::new() }
    }

    /// Converts an event of one namespace's watch to events of the merged watch.
    fn take<S: Showing<K>>(&mut self, namespace: &str, event: Event<K>, seen: &S) -> Vec<Event<K>> {
        let listed = self.listed.entry(namespace.to_owned()).or_default();
        match event {
            Event::Init => {
                listed.clear();
                if !self.has_begun {
                    self.unlisted.insert(namespace.to_owned());
                }
            }
            Event::InitApply(object) => {
                listed.insert(S::name(&object), object);
            }
            Event::InitDone if self.has_begun => return relisted(namespace, std::mem::take(listed), seen),
            Event::InitDone => {
                self.unlisted.remove(namespace);
                if self.unlisted.is_empty() {
                    return self.begin();
                }
            }
            event if self.has_begun => return vec![event],
            Event::Apply(object) => {
                listed.insert(S::name(&object), object);
            }
            Event::Delete(object) => {
                listed.remove(&S::name(&object));
            }
        }
        Vec::new()
    }

    fn begin(&mut self) -> Vec<Event<K>> {
        self.has_begun = true;
        let objects = std::mem::take(&mut self.listed).into_values().flat_map(BTreeMap::into_values);
        let mut events = vec![Event::Init];
        events.extend(objects.map(Event::InitApply));
        events.push(Event::InitDone);
        events
    }
}

fn relisted<K, S: Showing<K>>(namespace: &str, listed: BTreeMap<String, K>, seen: &S) -> Vec<Event<K>> {
    let shown = seen.shown(namespace).into_iter();
    let gone = shown.filter(|object| !listed.contains_key(&S::name(object))).map(Event::Delete);
    let gone: Vec<_> = gone.collect();
    gone.into_iter().chain(listed.into_values().map(Event::Apply)).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::reflector::{self, store::Writer};

    use super::*;

    struct Bench {
        merged: Merged<ConfigMap>,
        store: Store<ConfigMap>,
        writer: Writer<ConfigMap>,
    }

    fn mk_bench() -> Bench {
        let (store, writer) = reflector::store();
        let namespaces = BTreeSet::from(["one".to_owned(), "two".to_owned()]);
        Bench { merged: Merged::new(&namespaces), store, writer }
    }

    fn mk_object(namespace: &str, name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.into());
        object.metadata.name = Some(name.into());
        object
    }

    impl Bench {
        /// Feeds the store, and returns the number of events.
        fn take(&mut self, namespace: &str, event: Event<ConfigMap>) -> usize {
            let events = self.merged.take(namespace, event, &self.store);
            events.iter().for_each(|event| self.writer.apply_watcher_event(event));
            events.len()
        }

        fn list(&mut self, namespace: &str, names: &[&str]) -> usize {
            let mut told = self.take(namespace, Event::Init);
            for name in names {
                told += self.take(namespace, Event::InitApply(mk_object(namespace, name)));
            }
            told + self.take(namespace, Event::InitDone)
        }

        fn seen(&self) -> Vec<String> {
            let all = self.store.state();
            let mut seen: Vec<_> =
                all.iter().map(|object| format!("{}/{}", object.namespace().unwrap(), object.name_any())).collect();
            seen.sort();
            seen
        }
    }

    #[test]
    fn events_wait_until_every_namespace_is_listed() {
        let mut bench = mk_bench();
        assert_eq!(bench.list("one", &["a", "gone"]), 0);
        assert_eq!(bench.take("one", Event::Apply(mk_object("one", "b"))), 0);
        assert_eq!(bench.take("one", Event::Delete(mk_object("one", "gone"))), 0);
        bench.list("two", &["a"]);
        assert_eq!(bench.seen(), ["one/a", "one/b", "two/a"]);
    }

    #[test]
    fn a_namespace_that_is_listed_again_during_the_first_lists_is_awaited_again() {
        let mut bench = mk_bench();
        bench.list("one", &["a"]);
        bench.take("one", Event::Init);
        assert_eq!(bench.list("two", &[]), 0);
        bench.take("one", Event::InitApply(mk_object("one", "b")));
        bench.take("one", Event::InitDone);
        assert_eq!(bench.seen(), ["one/b"]);
    }

    #[test]
    fn only_a_relisted_namespace_loses_its_missing_objects() {
        let mut bench = mk_bench();
        bench.list("one", &["stays", "gone"]);
        bench.list("two", &["gone"]);
        // A deletion and the two listed objects. A single watch of all namespaces would restart instead.
        assert_eq!(bench.list("one", &["stays", "new"]), 3);
        assert_eq!(bench.seen(), ["one/new", "one/stays", "two/gone"]);
    }

    #[test]
    fn a_change_is_announced_at_once_after_the_first_lists() {
        let mut bench = mk_bench();
        bench.list("one", &[]);
        bench.list("two", &["a"]);
        assert_eq!(bench.take("two", Event::Delete(mk_object("two", "a"))), 1);
        assert_eq!(bench.take("one", Event::Apply(mk_object("one", "b"))), 1);
        assert_eq!(bench.seen(), ["one/b"]);
    }
}
