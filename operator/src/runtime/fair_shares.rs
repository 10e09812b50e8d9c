//! Permits with a limit for each namespace, so that one namespace cannot block the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits that namespaces share.
pub(crate) struct Shares {
    all: Arc<Semaphore>,
    /// The most permits that one namespace can hold.
    most: usize,
    /// The permits of each namespace that holds or awaits one.
    namespaces: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A permit, held until it is dropped.
pub(crate) struct Share {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Shares {
    /// Creates `all` permits, of which one namespace can hold at most `most`.
    pub(crate) fn new(all: usize, most: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), most, namespaces: Mutex::default() }
    }

    /// Waits for a permit. Returns none if the semaphore is closed, which never happens.
    pub(crate) async fn acquire(&self, namespace: &str) -> Option<Share> {
        // Wait for the namespace's own permit first: a waiting namespace then holds none of the shared permits.
        let own = self.of(namespace).acquire_owned().await.ok()?;
        let of_all = self.all.clone().acquire_owned().await.ok()?;
        Some(Share { _own: own, _of_all: of_all })
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = namespaces.get(namespace).and_then(Weak::upgrade) {
            return own;
        }
        namespaces.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.most));
        namespaces.insert(namespace.to_owned(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_namespace_holds_its_share_and_leaves_the_rest_to_others() {
        let shares = Shares::new(5, 2);
        let acquire = |namespace: &'static str| shares.acquire(namespace).now_or_never().flatten();
        let held = [acquire("a").unwrap(), acquire("a").unwrap()];
        assert!(acquire("a").is_none());
        let others = [acquire("b").unwrap(), acquire("b").unwrap(), acquire("c").unwrap()];
        assert!(acquire("c").is_none(), "all are held");
        drop(held);
        assert!(acquire("c").is_some());
        drop(others);
        acquire("d").unwrap();
        assert_eq!(shares.namespaces.lock().unwrap().len(), 1, "namespaces that hold nothing are forgotten");
    }
}
