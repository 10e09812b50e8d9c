//! Cache of a kind's watched objects, by namespace and name. kube's own store keeps name, uid and version of each
//! object a second time. For a child or a pod, that is as much memory as its view.

use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{Hash, Hasher},
    mem,
    sync::{Arc, PoisonError, RwLock},
};

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;

use crate::{
    objects::full_name::{FullName, Kept},
    runtime::{errors::Error, ready_gate::Gate},
};

/// An object, with its name as the key.
struct Entry<V>(Arc<V>);

impl<V: Kept> Borrow<FullName> for Entry<V> {
    fn borrow(&self) -> &FullName {
        self.0.full_name()
    }
}

impl<V: Kept> Hash for Entry<V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.full_name().hash(state);
    }
}

impl<V: Kept> PartialEq for Entry<V> {
    fn eq(&self, other: &Self) -> bool {
        self.0.full_name() == other.0.full_name()
    }
}

impl<V: Kept> Eq for Entry<V> {}

/// The watched objects of one kind.
pub(crate) struct Cache<V> {
    seen: Arc<RwLock<HashSet<Entry<V>>>>,
    complete: Gate,
}

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Self {
        Self { seen: self.seen.clone(), complete: self.complete.clone() }
    }
}

impl<V: Kept> Cache<V> {
    /// Waits until the cache holds every object that existed at the start.
    pub(crate) async fn complete(&self) -> Result<(), Error> {
        self.complete.passed().await
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.get(&FullName::new(namespace, name)).map(|entry| entry.0.clone())
    }

    /// Returns the objects for which `choose` is true.
    pub(crate) fn filter(&self, choose: impl Fn(&V) -> bool) -> Vec<Arc<V>> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|entry| choose(&entry.0)).map(|entry| entry.0.clone()).collect()
    }
}

/// Updates a [`Cache`] with the events of a watch.
pub(crate) struct Feeder<V> {
    cache: Cache<V>,
    /// The names that the current list has returned so far.
    listed: HashSet<FullName>,
    complete: watch::Sender<bool>,
}

/// Returns an empty cache and its feeder.
pub(crate) fn cache<V: Kept>() -> (Cache<V>, Feeder<V>) {
    let (opener, complete) = Gate::closed();
    let cache = Cache { seen: Arc::default(), complete };
    (cache.clone(), Feeder { cache, listed: HashSet::new(), complete: opener })
}

impl<V: Kept> Feeder<V> {
    /// Applies an event to the cache, and returns the objects that it changed or removed.
    pub(crate) fn feed(&mut self, event: Event<V>) -> Vec<Arc<V>> {
        let mut seen = self.cache.seen.write().unwrap_or_else(PoisonError::into_inner);
        let mut keep = |object: V| {
            let object = Arc::new(object);
            seen.replace(Entry(object.clone()));
            vec![object]
        };
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.insert(object.full_name().clone());
                keep(object)
            }
            Event::Apply(object) => keep(object),
            Event::Delete(object) => {
                seen.remove(object.full_name());
                vec![Arc::new(object)]
            }
            Event::InitDone => {
                let listed = mem::take(&mut self.listed);
                let gone = seen.extract_if(|entry| !listed.contains(entry.0.full_name()));
                let gone = gone.map(|entry| entry.0).collect();
                self.complete.send_replace(true);
                gone
            }
        }
    }

    /// Applies all events of a kind to the cache, and returns a stream of the touched objects. A failed watch restarts
    /// by itself.
    pub(crate) fn follow(
        mut self,
        kind: &'static str,
        events: impl Stream<Item = watcher::Result<Event<V>>> + Send + 'static,
    ) -> BoxStream<'static, Arc<V>> {
        events
            .flat_map(move |event| match event {
                Ok(event) => stream::iter(self.feed(event)),
                Err(error) => {
                    tracing::warn!(kind, %error, "a watch failed and restarts");
                    stream::iter(Vec::new())
                }
            })
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug)]
    struct Named(FullName, u8);

    impl Kept for Named {
        fn full_name(&self) -> &FullName {
            &self.0
        }
    }

    fn mk(name: &str, content: u8) -> Named {
        Named(FullName::new("team", name), content)
    }

    fn touched(feeder: &mut Feeder<Named>, event: Event<Named>) -> Vec<String> {
        feeder.feed(event).iter().map(|named| named.0.name().to_owned()).collect()
    }

    #[test]
    fn the_newest_of_an_object_is_kept_under_its_namespace_and_name_until_it_is_deleted() {
        let (cache, mut feeder) = cache();
        for content in [1, 2] {
            assert_eq!(touched(&mut feeder, Event::Apply(mk("a", content))), ["a"]);
        }
        let content = |namespace: &str, name: &str| cache.get(namespace, name).map(|named| named.1);
        assert_eq!((content("team", "a"), content("team", "b"), content("other", "a")), (Some(2), None, None));
        assert_eq!(cache.filter(|named| named.1 == 2).len(), 1);
        assert_eq!(touched(&mut feeder, Event::Delete(mk("a", 2))), ["a"]);
        assert_eq!(content("team", "a"), None);
    }

    #[test]
    fn an_object_that_a_list_lacks_is_removed_and_announced() {
        let (cache, mut feeder) = cache();
        let mut list = |names: &[&str]| {
            feeder.feed(Event::Init);
            names.iter().for_each(|name| drop(feeder.feed(Event::InitApply(mk(name, 1)))));
            touched(&mut feeder, Event::InitDone)
        };
        assert!(list(&["stays", "gone"]).is_empty());
        assert_eq!(list(&["stays", "new"]), ["gone"]);
        assert!(cache.get("team", "gone").is_none() && cache.get("team", "new").is_some());
    }

    #[tokio::test]
    async fn it_is_complete_when_everything_has_been_listed_once_and_not_before() {
        let (cache, mut feeder) = cache();
        for event in [Event::Init, Event::InitApply(mk("a", 1))] {
            feeder.feed(event);
            assert!(!cache.complete.is_open());
        }
        feeder.feed(Event::InitDone);
        cache.complete().await.unwrap();
        drop(feeder);
        assert!(cache.complete().await.is_ok(), "the cache stays complete");
    }

    #[test]
    fn a_name_without_a_namespace_is_found_as_such() {
        let name = FullName::of(&kube::core::ObjectMeta { name: Some("a".into()), ..Default::default() });
        assert_eq!((name.namespace(), name.name()), ("", "a"));
    }
}
