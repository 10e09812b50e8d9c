//! Subscriptions of callers to resources. Counts them for each session, limits them, and delivers updates.
//!
//! A subscription outlives its session. Another module makes it again in the next session.

use std::collections::{BTreeSet, HashMap, HashSet};
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
struct OfSession {
    /// The identity of the caller who subscribed last.
    identity: Identity,
    listeners: HashMap<u64, Listener>,
    /// Number of listeners of each URI. No number is zero.
    counts: HashMap<Arc<str>, usize>,
    /// The URIs that the backend has accepted in the present session.
    taken: HashSet<Arc<str>>,
    changed: Arc<Notify>,
}

struct Listener {
    caller: String,
    uris: HashMap<Arc<str>, Stage>,
    /// Updates that it has not received yet.
    pending: BTreeSet<Arc<str>>,
    woken: Arc<Notify>,
}

/// The stage of a listener's subscription to one URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The backend has not answered.
    Asked,
    /// The backend has accepted it once.
    Taken,
}

/// The updates for one listener. Dropping this ends its subscriptions.
pub struct Updates {
    subscriptions: Arc<Subscriptions>,
    key: String,
    number: u64,
    woken: Arc<Notify>,
    told_at: Option<Instant>,
}

/// The difference between the subscriptions that listeners want and those that the backend has.
pub(super) struct Difference {
    pub(super) identity: Identity,
    /// Every URI that listeners want.
    pub(super) wanted: BTreeSet<Arc<str>>,
    /// Wanted URIs that the backend has not accepted.
    pub(super) missing: Vec<Arc<str>>,
    /// Accepted URIs that no listener wants.
    pub(super) surplus: Vec<Arc<str>>,
    /// Notified when a listener is added or removed.
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
        let mut of_pod = all.sessions.values().map(|session| session.counts.len()).sum::<usize>();
        let is_first = !all.sessions.contains_key(key);
        let session = all.sessions.entry(key.to_owned()).or_insert_with(OfSession::new);
        let own = session.listeners.values().filter(|listener| listener.caller == caller);
        let mut of_caller = own.map(|listener| listener.uris.len()).sum::<usize>();
        let mut listener = Listener {
            caller: caller.to_owned(),
            uris: HashMap::new(),
            pending: BTreeSet::new(),
            woken: Arc::clone(&woken),
        };
        for uri in uris.iter().filter(|uri| uri.len() <= LONGEST_URI) {
            let known = session.counts.get_key_value(uri.as_str()).map(|(known, _)| Arc::clone(known));
            let is_full = known.is_none() && (session.counts.len() >= MOST_OF_SESSION || of_pod >= MOST_OF_POD);
            if is_full || of_caller >= MOST_OF_CALLER || listener.uris.contains_key(uri.as_str()) {
                continue;
            }
            of_pod += usize::from(known.is_none());
            of_caller += 1;
            let uri = known.unwrap_or_else(|| Arc::from(uri.as_str()));
            let stage = if session.taken.contains(&uri) { Stage::Taken } else { Stage::Asked };
            *session.counts.entry(Arc::clone(&uri)).or_default() += 1;
            listener.uris.insert(uri, stage);
        }
        session.identity = identity.clone();
        session.listeners.insert(number, listener);
        session.changed.notify_one();
        drop(all);
        let subscriptions = Arc::clone(self);
        (Updates { subscriptions, key: key.to_owned(), number, woken, told_at: None }, is_first)
    }

    /// Returns the difference between the subscriptions that listeners want and those that the backend has. Returns
    /// `None` for an unknown session.
    pub(super) fn difference(&self, key: &str) -> Option<Difference> {
        let all = self.lock();
        let session = all.sessions.get(key)?;
        let (wanted, taken) = (&session.counts, &session.taken);
        Some(Difference {
            identity: session.identity.clone(),
            wanted: wanted.keys().cloned().collect(),
            missing: wanted.keys().filter(|uri| !taken.contains(*uri)).cloned().collect(),
            surplus: taken.iter().filter(|uri| !wanted.contains_key(*uri)).cloned().collect(),
            changed: Arc::clone(&session.changed),
        })
    }

    /// Forgets a session in which nobody wants a URI. Returns false if a listener wants one, or the backend still has
    /// one.
    pub(super) fn forget(&self, key: &str) -> bool {
        let mut all = self.lock();
        let is_idle = |session: &OfSession| session.counts.is_empty() && session.taken.is_empty();
        let is_forgotten = all.sessions.get(key).is_none_or(is_idle);
        if is_forgotten {
            all.sessions.remove(key);
        }
        is_forgotten
    }

    /// Records that the backend has accepted this URI. Listeners that had it before receive an update, because they
    /// may have missed one.
    pub(super) fn taken(&self, key: &str, uri: &Arc<str>) {
        let mut all = self.lock();
        let Some(session) = all.sessions.get_mut(key) else { return };
        if !session.taken.insert(Arc::clone(uri)) {
            return;
        }
        for listener in session.listeners.values_mut() {
            match listener.uris.get_mut(uri) {
                Some(stage @ Stage::Asked) => *stage = Stage::Taken,
                Some(Stage::Taken) => {
                    listener.pending.insert(Arc::clone(uri));
                }
                None => continue,
            }
            listener.woken.notify_one();
        }
    }

    /// Records that the backend refuses this URI. Removes it from listeners that have just asked for it. Returns true
    /// if other listeners want it, which had it before.
    pub(super) fn refused(&self, key: &str, uri: &str) -> bool {
        let mut all = self.lock();
        let Some(session) = all.sessions.get_mut(key) else { return false };
        for listener in session.listeners.values_mut() {
            if listener.uris.get(uri) == Some(&Stage::Asked) {
                listener.uris.remove(uri);
                listener.pending.remove(uri);
                less(&mut session.counts, uri);
                listener.woken.notify_one();
            }
        }
        session.counts.contains_key(uri)
    }

    /// Records that the backend no longer has this URI.
    pub(super) fn left(&self, key: &str, uri: &str) {
        if let Some(session) = self.lock().sessions.get_mut(key) {
            session.taken.remove(uri);
        }
    }

    /// Records that the backend has no other URIs than these.
    pub(super) fn only(&self, key: &str, uris: &BTreeSet<Arc<str>>) {
        if let Some(session) = self.lock().sessions.get_mut(key) {
            session.taken.retain(|uri| uris.contains(uri));
        }
    }

    /// Records that the backend no longer has any URI of this session.
    pub(super) fn lost(&self, key: &str) {
        if let Some(session) = self.lock().sessions.get_mut(key) {
            session.taken.clear();
        }
    }

    /// Reports an update of a resource to the listeners of exactly this URI in this session.
    pub(super) fn updated(&self, key: &str, uri: &str) {
        let mut all = self.lock();
        let Some(session) = all.sessions.get_mut(key) else { return };
        for listener in session.listeners.values_mut() {
            if let Some((uri, _)) = listener.uris.get_key_value(uri)
                && listener.pending.insert(Arc::clone(uri))
            {
                listener.woken.notify_one();
            }
        }
    }

    /// Reports an update of each URI to all listeners of this session, because updates may have been missed.
    pub(super) fn missed(&self, key: &str) {
        let mut all = self.lock();
        let Some(session) = all.sessions.get_mut(key) else { return };
        for listener in session.listeners.values_mut() {
            listener.pending.extend(listener.uris.keys().cloned());
            listener.woken.notify_one();
        }
    }

    /// Removes a listener.
    fn remove(&self, key: &str, number: u64) {
        let mut all = self.lock();
        let Some(session) = all.sessions.get_mut(key) else { return };
        let removed = session.listeners.remove(&number);
        for uri in removed.into_iter().flat_map(|listener| listener.uris.into_keys()) {
            less(&mut session.counts, &uri);
        }
        session.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfSession {
    fn new() -> Self {
        Self {
            identity: Identity::Nothing,
            listeners: HashMap::new(),
            counts: HashMap::new(),
            taken: HashSet::new(),
            changed: Arc::default(),
        }
    }
}

/// Subtracts one listener of a URI.
fn less(counts: &mut HashMap<Arc<str>, usize>, uri: &str) {
    if let Some(count) = counts.get_mut(uri) {
        *count -= 1;
        if *count == 0 {
            counts.remove(uri);
        }
    }
}

impl Updates {
    /// Waits a limited time until the backend has accepted or refused each URI. Returns the accepted URIs, and
    /// removes the others from the listener.
    pub(super) async fn decided(&self) -> HashSet<Arc<str>> {
        let decided = async {
            while self.with(|listener| listener.uris.values().any(|stage| *stage == Stage::Asked)).unwrap_or(false) {
                self.woken.notified().await;
            }
        };
        _ = timeout(PATIENCE, decided).await;
        let mut all = self.subscriptions.lock();
        let Some(session) = all.sessions.get_mut(&self.key) else { return HashSet::new() };
        let Some(listener) = session.listeners.get_mut(&self.number) else { return HashSet::new() };
        for (uri, _) in listener.uris.extract_if(|_, stage| *stage == Stage::Asked) {
            listener.pending.remove(&uri);
            less(&mut session.counts, &uri);
        }
        session.changed.notify_one();
        listener.uris.keys().cloned().collect()
    }

    /// Waits for updates, and returns their URIs, each once. Dropping this future loses no update.
    pub async fn next(&mut self) -> Vec<String> {
        if let Some(told_at) = self.told_at {
            sleep_until(told_at + PAUSE).await;
        }
        loop {
            let pending = self.with(|listener| std::mem::take(&mut listener.pending)).unwrap_or_default();
            if !pending.is_empty() {
                self.told_at = Some(Instant::now());
                return pending.iter().map(|uri| uri.to_string()).collect();
            }
            self.woken.notified().await;
        }
    }

    fn with<T>(&self, read: impl FnOnce(&mut Listener) -> T) -> Option<T> {
        let mut all = self.subscriptions.lock();
        all.sessions.get_mut(&self.key)?.listeners.get_mut(&self.number).map(read)
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        self.subscriptions.remove(&self.key, self.number);
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
        for uri in all.difference(key).unwrap().missing {
            all.taken(key, &uri);
        }
        let count = updates.decided().await.len();
        (updates, count)
    }

    #[tokio::test]
    async fn a_listener_is_told_of_exactly_its_uris_in_its_session_and_of_several_updates_as_one() {
        let all = Arc::<Subscriptions>::default();
        let (mut alices, _) = listen(&all, "a", "alice", &uris(0..2)).await;
        let (mut bobs, _) = listen(&all, "b", "bob", &uris(0..1)).await;
        for uri in ["note:0", "note:0", "note:1", "note:00", "note", "note:2"] {
            all.updated("a", uri);
        }
        assert_eq!(alices.next().await, ["note:0", "note:1"]);
        all.updated("a", "note:0");
        assert!(alices.next().now_or_never().is_none(), "the last was told just now");
        assert_eq!(alices.next().await, ["note:0"]);
        assert!(bobs.next().now_or_never().is_none(), "these were updates of another session");
        all.missed("b");
        assert_eq!(bobs.next().await, ["note:0"]);
    }

    #[tokio::test]
    async fn a_listener_does_without_what_the_backend_refuses() {
        let all = Arc::<Subscriptions>::default();
        let (first, _) = listen(&all, "a", "alice", &uris(0..1)).await;
        let (second, is_first) = all.add("a", ("alice", &Identity::Nothing), &uris(0..2));
        assert!(!is_first);
        assert!(!all.refused("a", "note:1"), "nobody else wants it");
        assert!(all.refused("a", "note:0"), "it was taken for the first");
        assert_eq!(second.decided().await, ["note:0".into()].into());
        let left = all.difference("a").unwrap();
        assert_eq!((left.wanted.len(), left.missing.len(), left.surplus.len()), (1, 0, 0));
        drop(first);
        assert!(all.difference("a").unwrap().surplus.is_empty(), "the second listens");
        drop(second);
        assert_eq!(all.difference("a").unwrap().surplus, [Arc::<str>::from("note:0")]);
        assert!(!all.forget("a"), "the backend still has it");
        all.left("a", "note:0");
        assert!(all.forget("a") && all.difference("a").is_none());
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
        assert_eq!(listen(&all, "a", "alice", &["x".repeat(LONGEST_URI + 1)]).await.1, 0);
        assert_eq!(listen(&all, "a", "bob", &["x".repeat(LONGEST_URI)]).await.1, 1);

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
        let counted = all.lock().sessions.values().map(|session| session.counts.len()).sum::<usize>();
        assert_eq!(counted, MOST_OF_POD);
        assert!(of_pod < 60 * 200);
    }
}
