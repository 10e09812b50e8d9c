//! Subscriptions of callers to resources. Limits them, records which of them the backend has accepted, and delivers
//! updates.
//!
//! A subscription outlives its session. Another module makes it again in the next session.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::Identity;

/// Maximum number of URIs of all listeners of one caller.
const MOST_OF_CALLER: usize = 200;
/// Maximum number of different URIs of one session.
const MOST_OF_SESSION: usize = 1_000;
/// Maximum number of different URIs of all sessions of this pod. Each session counts separately.
const MOST_OF_POD: usize = 10_000;
/// Maximum length of a URI, in bytes.
const LONGEST_URI: usize = 2_048;
/// Time limit for the backend to accept the URIs of a new listener.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between the updates that a listener receives. Several updates of one URI in this time are merged.
const PAUSE: Duration = Duration::from_millis(200);

/// The subscriptions of all sessions of this pod, by the key of the session.
#[derive(Default)]
pub(super) struct Subscriptions(Mutex<All>);

#[derive(Default)]
struct All {
    sessions: HashMap<String, OfSession>,
    /// Number of the last listener.
    last: u64,
}

/// The subscriptions of one session.
#[derive(Default)]
pub(super) struct OfSession {
    /// The identity of the caller who subscribed last.
    identity: Identity,
    listeners: HashMap<u64, Listener>,
    /// The URIs that the backend has accepted in the present session.
    taken: BTreeSet<Arc<str>>,
    changed: Arc<Notify>,
}

struct Listener {
    caller: String,
    uris: BTreeMap<Arc<str>, Subscription>,
    /// Notified when a subscription changes.
    woken: Arc<Notify>,
}

/// A listener's subscription to one URI.
struct Subscription {
    /// True once the backend has accepted the URI.
    is_taken: bool,
    /// True if the listener has not received the last update yet.
    is_updated: bool,
}

/// The updates for one listener. Dropping this ends its subscriptions.
pub struct Updates {
    subscriptions: Arc<Subscriptions>,
    key: String,
    number: u64,
    woken: Arc<Notify>,
    told_at: Option<Instant>,
}

/// The URIs of one session at one moment.
pub(super) struct Snapshot {
    pub(super) identity: Identity,
    /// The URIs that listeners want.
    pub(super) wanted: BTreeSet<Arc<str>>,
    /// The URIs that the backend has accepted.
    pub(super) taken: BTreeSet<Arc<str>>,
    /// Notified when listeners want other URIs.
    pub(super) changed: Arc<Notify>,
}

impl Subscriptions {
    /// Adds a listener to a session, with as many URIs as the limits allow. Returns true for the first listener. The
    /// calling code must then begin to subscribe.
    pub(super) fn add(
        self: &Arc<Self>,
        key: &str,
        (caller, identity): (&str, &Identity),
        uris: &[String],
    ) -> (Updates, bool) {
        let mut all = self.lock();
        all.last += 1;
        let (number, woken) = (all.last, Arc::<Notify>::default());
        let others = all.sessions.iter().filter(|(other, _)| *other != key);
        let elsewhere = others.map(|(_, session)| session.wanted().collect::<HashSet<_>>().len()).sum();
        let is_first = !all.sessions.contains_key(key);
        let session = all.sessions.entry(key.to_owned()).or_default();
        let uris = session.allowed(caller, uris, elsewhere);
        session.listeners.insert(number, Listener { caller: caller.to_owned(), uris, woken: Arc::clone(&woken) });
        session.identity = identity.clone();
        session.changed.notify_one();
        drop(all);
        (Updates { subscriptions: Arc::clone(self), key: key.to_owned(), number, woken, told_at: None }, is_first)
    }

    /// Applies a function to the subscriptions of a session. Returns the default value for an unknown session.
    pub(super) fn with<T: Default>(&self, key: &str, apply: impl FnOnce(&mut OfSession) -> T) -> T {
        self.lock().sessions.get_mut(key).map(apply).unwrap_or_default()
    }

    /// Forgets a session in which nobody wants a URI. Returns false if a listener wants one, or the backend still has
    /// one.
    pub(super) fn forget(&self, key: &str) -> bool {
        let mut all = self.lock();
        let is_idle = |session: &OfSession| session.wanted().next().is_none() && session.taken.is_empty();
        let is_forgotten = all.sessions.get(key).is_none_or(is_idle);
        if is_forgotten {
            all.sessions.remove(key);
        }
        is_forgotten
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfSession {
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            identity: self.identity.clone(),
            wanted: self.wanted().cloned().collect(),
            taken: self.taken.clone(),
            changed: Arc::clone(&self.changed),
        }
    }

    /// Records that the backend has accepted this URI. Listeners that had it before receive an update, because they
    /// may have missed one.
    pub(super) fn taken(&mut self, uri: &Arc<str>) {
        if self.taken.insert(Arc::clone(uri)) {
            for (subscription, woken) in self.subscribed(uri) {
                subscription.is_updated |= subscription.is_taken;
                subscription.is_taken = true;
                woken.notify_one();
            }
        }
    }

    /// Records that the backend refuses this URI. Removes it from listeners that have just asked for it. Returns true
    /// if other listeners want it, which had it before.
    pub(super) fn refused(&mut self, uri: &str) -> bool {
        for listener in self.listeners.values_mut() {
            if listener.uris.get(uri).is_some_and(|subscription| !subscription.is_taken) {
                listener.uris.remove(uri);
                listener.woken.notify_one();
            }
        }
        self.wanted().any(|wanted| **wanted == *uri)
    }

    /// Records that the backend no longer has any URI.
    pub(super) fn lost(&mut self) {
        self.taken.clear();
    }

    /// Records that the backend no longer has other URIs than these.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.taken.retain(|uri| keep(uri));
    }

    /// Reports an update of a resource to the listeners of exactly this URI.
    pub(super) fn updated(&mut self, uri: &str) {
        for (subscription, woken) in self.subscribed(uri) {
            subscription.is_updated = true;
            woken.notify_one();
        }
    }

    /// Reports an update of each URI to all listeners, because updates may have been missed.
    pub(super) fn missed(&mut self) {
        for listener in self.listeners.values_mut() {
            listener.uris.values_mut().for_each(|subscription| subscription.is_updated = true);
            listener.woken.notify_one();
        }
    }

    /// Returns the URIs that listeners want. Several listeners may want the same URI.
    fn wanted(&self) -> impl Iterator<Item = &Arc<str>> {
        self.listeners.values().flat_map(|listener| listener.uris.keys())
    }

    /// Returns the subscriptions to this URI, each with the notification of its listener.
    fn subscribed(&mut self, uri: &str) -> impl Iterator<Item = (&mut Subscription, &Notify)> {
        let listeners = self.listeners.values_mut();
        listeners.filter_map(move |listener| Some((listener.uris.get_mut(uri)?, &*listener.woken)))
    }

    /// Returns the subscriptions of a new listener: as many of these URIs as the limits allow. Other sessions have
    /// `elsewhere` different URIs.
    fn allowed(&self, caller: &str, uris: &[String], elsewhere: usize) -> BTreeMap<Arc<str>, Subscription> {
        let own = self.listeners.values().filter(|listener| listener.caller == caller);
        let most = MOST_OF_CALLER.saturating_sub(own.map(|listener| listener.uris.len()).sum());
        let most_different = MOST_OF_SESSION.min(MOST_OF_POD.saturating_sub(elsewhere));
        let (mut wanted, mut allowed) = (self.wanted().cloned().collect::<HashSet<_>>(), BTreeMap::new());
        for uri in uris.iter().filter(|uri| uri.len() <= LONGEST_URI) {
            let known = wanted.get(uri.as_str()).cloned();
            if allowed.len() >= most || known.is_none() && wanted.len() >= most_different {
                continue;
            }
            let uri = known.unwrap_or_else(|| uri.as_str().into());
            wanted.insert(Arc::clone(&uri));
            let is_taken = self.taken.contains(&uri);
            allowed.insert(uri, Subscription { is_taken, is_updated: false });
        }
        allowed
    }
}

impl Updates {
    /// Waits a limited time until the backend has accepted or refused each URI. Returns the accepted URIs, and
    /// removes the others from the listener.
    pub(super) async fn decided(&self) -> HashSet<Arc<str>> {
        let decided = async {
            while self.with(|listener| listener.uris.values().any(|subscription| !subscription.is_taken)) {
                self.woken.notified().await;
            }
        };
        _ = timeout(PATIENCE, decided).await;
        self.subscriptions.with(&self.key, |session| session.changed.notify_one());
        self.with(|listener| {
            listener.uris.retain(|_, subscription| subscription.is_taken);
            listener.uris.keys().cloned().collect()
        })
    }

    /// Waits for updates, and returns their URIs, each once. Dropping this future loses no update.
    pub async fn next(&mut self) -> Vec<String> {
        if let Some(told_at) = self.told_at {
            sleep_until(told_at + PAUSE).await;
        }
        loop {
            let updated = self.with(|listener| {
                let updated = listener.uris.iter_mut().filter_map(|(uri, subscription)| {
                    std::mem::take(&mut subscription.is_updated).then(|| uri.to_string())
                });
                updated.collect::<Vec<_>>()
            });
            if !updated.is_empty() {
                self.told_at = Some(Instant::now());
                return updated;
            }
            self.woken.notified().await;
        }
    }

    fn with<T: Default>(&self, apply: impl FnOnce(&mut Listener) -> T) -> T {
        self.subscriptions
            .with(&self.key, |session| session.listeners.get_mut(&self.number).map(apply).unwrap_or_default())
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        self.subscriptions.with(&self.key, |session| {
            session.listeners.remove(&self.number);
            session.changed.notify_one();
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn uris(numbers: std::ops::Range<usize>) -> Vec<String> {
        numbers.map(|number| format!("note:{number}")).collect()
    }

    /// Returns a listener in this session and the number of its URIs. The backend accepts all URIs within the limits.
    async fn listen(all: &Arc<Subscriptions>, key: &str, caller: &str, uris: &[String]) -> (Updates, usize) {
        let (updates, _) = all.add(key, (caller, &Identity::Nothing), uris);
        all.with(key, |session| session.snapshot().wanted.iter().for_each(|uri| session.taken(uri)));
        let count = updates.decided().await.len();
        (updates, count)
    }

    #[tokio::test]
    async fn a_listener_hears_only_of_its_uris_and_once_for_several_updates() {
        let all = Arc::<Subscriptions>::default();
        let (mut alices, _) = listen(&all, "a", "alice", &uris(0..2)).await;
        let (mut bobs, _) = listen(&all, "b", "bob", &uris(0..1)).await;
        for uri in ["note:0", "note:0", "note:1", "note:00", "note", "note:2"] {
            all.with("a", |session| session.updated(uri));
        }
        assert_eq!(alices.next().await, ["note:0", "note:1"]);
        all.with("a", |session| session.updated("note:0"));
        assert!(alices.next().now_or_never().is_none(), "the last was told just now");
        assert_eq!(alices.next().await, ["note:0"]);
        assert!(bobs.next().now_or_never().is_none(), "these were updates of another session");
        all.with("b", OfSession::missed);
        assert_eq!(bobs.next().await, ["note:0"]);
    }

    #[tokio::test]
    async fn a_listener_continues_without_refused_subscriptions() {
        let all = Arc::<Subscriptions>::default();
        let (first, _) = listen(&all, "a", "alice", &uris(0..1)).await;
        let (second, is_first) = all.add("a", ("alice", &Identity::Nothing), &uris(0..2));
        assert!(!is_first);
        assert!(!all.with("a", |session| session.refused("note:1")), "nobody else wants it");
        assert!(all.with("a", |session| session.refused("note:0")), "it was taken for the first");
        let uri = Arc::<str>::from("note:0");
        let only = BTreeSet::from([Arc::clone(&uri)]);
        assert_eq!(second.decided().await, [uri].into());
        let snapshot = || all.with("a", |session| Some(session.snapshot())).map(|now| (now.wanted, now.taken));
        drop(first);
        assert_eq!(snapshot(), Some((only.clone(), only.clone())), "the second listens");
        drop(second);
        assert_eq!(snapshot(), Some((BTreeSet::new(), only)));
        assert!(!all.forget("a"), "the backend still has it");
        all.with("a", OfSession::lost);
        assert!(all.forget("a") && snapshot().is_none());
    }

    #[tokio::test]
    async fn uris_are_bounded_for_each_caller_each_session_and_the_pod() {
        let all = Arc::<Subscriptions>::default();
        let (one, count) = listen(&all, "a", "alice", &uris(0..150)).await;
        assert_eq!(count, 150);
        let (_two, count) = listen(&all, "a", "alice", &uris(100..250)).await;
        assert_eq!(count, 50, "also those that another listener has");
        drop(one);
        assert_eq!(listen(&all, "a", "alice", &uris(0..200)).await.1, 150);
        assert_eq!(listen(&all, "a", "alice", &["x".repeat(2_049)]).await.1, 0);
        assert_eq!(listen(&all, "a", "bob", &["x".repeat(2_048)]).await.1, 1);

        let mut held = vec![];
        for caller in 0..5 {
            let (updates, count) =
                listen(&all, "shared", &caller.to_string(), &uris(caller * 200..(caller + 1) * 200)).await;
            assert_eq!(count, 200);
            held.push(updates);
        }
        assert_eq!(listen(&all, "shared", "more", &uris(999..1_001)).await.1, 1, "only what the session has already");

        let mut of_pod = 0;
        for caller in 0..60 {
            let (updates, count) = listen(&all, &caller.to_string(), "c", &uris(0..200)).await;
            of_pod += count;
            held.push(updates);
        }
        // The URIs of the sessions "a" and "shared" count, too.
        let counted = |session: &OfSession| session.snapshot().wanted.len();
        assert_eq!(all.lock().sessions.values().map(counted).sum::<usize>(), 10_000);
        assert!(of_pod < 60 * 200);
        assert_eq!(listen(&all, "shared", "again", &uris(0..1)).await.1, 1, "the session has it already");
    }
}
