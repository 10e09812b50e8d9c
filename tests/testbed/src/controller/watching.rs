//! Watches kinds, also before their definition.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// Waits for the same time before each attempt to watch, so that a new definition is soon noticed.
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

/// Returns whether all objects of the kind are known. It is false while the kind is not defined.
pub(crate) fn is_synced<K>(store: &Store<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    matches!(store.wait_until_ready().now_or_never(), Some(Ok(())))
}

/// Follows the objects of a kind. `changes` gets a stream with an item for each change.
pub(crate) fn follow<K>(client: &Client, config: watcher::Config, changes: &mut Vec<BoxStream<'static, ()>>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher(Api::<K>::all(client.clone()), config).backoff(Steady).reflect(writer);
    let heard = events.map(|event| match event {
        Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
            tracing::debug!("{} are not defined", K::plural(&()));
        }
        Err(error) => tracing::warn!("the watch of {}: {error}", K::plural(&())),
        Ok(_) => {}
    });
    changes.push(heard.boxed());
    store
}
