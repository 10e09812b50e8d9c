//! Subscriptions of one session at the backend. Makes and ends them as listeners need, and makes them again in the
//! next session.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::error::BackendError;
use super::listening::PAUSE;
use super::session::{Era, Session};
use super::sessions::{LONGEST_PAUSE, STABLE, Sessions, growing_pauses};
use super::subscriptions::{OfSession, Snapshot, Updates};
use super::{Identity, Notice, OnNotice};

/// Maximum number of requests of one session that wait for their answers.
const MOST_REQUESTS: usize = 8;
/// Time limit for a backend to acknowledge a stream.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);
/// Pause before another attempt, if the next session has refused a subscription.
const RETRY: Duration = Duration::from_secs(30);
/// Interval at which a session with listeners is marked as used.
const TOUCH: Duration = Duration::from_secs(60);

impl Sessions {
    /// Begins to listen to these resources in the session of this caller. Returns the URIs that the backend accepts,
    /// and their updates. Returns `None` if it accepts none of them.
    ///
    /// # Errors
    /// If there is no session.
    pub async fn listen(
        self: &Arc<Self>,
        caller: &str,
        uris: &[String],
        identity: &Identity,
    ) -> Result<Option<(Vec<String>, Updates)>, BackendError> {
        if !self.session(caller, identity).await?.peer().updates_resources {
            return Ok(None);
        }
        let key = self.key(caller);
        let (updates, is_first) = self.subscriptions().add(&key, (caller, identity), uris);
        if is_first {
            tokio::spawn(keep(Arc::clone(self), key));
        }
        let taken = updates.decided().await;
        let uris = Vec::from_iter(uris.iter().filter(|uri| taken.contains(uri.as_str())).cloned());
        Ok((!uris.is_empty()).then_some((uris, updates)))
    }
}

/// Keeps the subscriptions of a session at the backend until nobody needs any. Begins another session after one that
/// has ended.
async fn keep(sessions: Arc<Sessions>, key: String) {
    let subscriptions = sessions.subscriptions();
    let mut pauses = growing_pauses();
    while !subscriptions.forget(&key) {
        let begun_at = Instant::now();
        let Some(snapshot) = subscriptions.with(&key, |session| Some(session.snapshot())) else { return };
        match keep_in_session(&sessions, &key, &snapshot.identity).await {
            // Another keeper may have begun.
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "a session with subscriptions has ended"),
        }
        subscriptions.with(&key, OfSession::lost);
        if begun_at.elapsed() > STABLE {
            pauses = growing_pauses();
        }
        _ = timeout(pauses.next().unwrap_or(LONGEST_PAUSE), snapshot.changed.notified()).await;
    }
}

/// Keeps the subscriptions in one session until nobody needs any.
///
/// # Errors
/// If the session cannot begin, or has ended.
async fn keep_in_session(sessions: &Arc<Sessions>, key: &str, identity: &Identity) -> Result<(), BackendError> {
    let session = sessions.session(key, identity).await?;
    let (era, ended) = (session.era(), session.ended());
    // The weak reference lets the cache evict the session in spite of listeners.
    let keeper = Keeper { sessions, key, session: Arc::downgrade(&session) };
    drop(session);
    let kept = tokio::select! {
        biased;
        () = ended.cancelled() => Err(BackendError::Ended),
        kept = keeper.by_requests(), if era == Era::Legacy => kept,
        kept = keeper.by_streams(), if era == Era::Modern => kept,
        never = keeper.touch() => match never {},
    };
    // The backend may have forgotten a session over HTTP. The end of a process needs no such record.
    if let (Err(_), Some(session)) = (&kept, keeper.session.upgrade().filter(|session| session.is_alive())) {
        sessions.ended(key, &session).await;
    }
    kept
}

/// The keeper of the subscriptions in one session.
struct Keeper<'a> {
    sessions: &'a Sessions,
    key: &'a str,
    session: Weak<Session>,
}

/// A stream of updates.
struct Stream {
    asked: BTreeSet<Arc<str>>,
    end: BoxFuture<'static, Result<(), BackendError>>,
}

impl Keeper<'_> {
    /// Subscribes and unsubscribes with one request for each URI, as backends with a handshake require.
    async fn by_requests(&self) -> Result<(), BackendError> {
        let mut requests = FuturesUnordered::new();
        // URIs without further requests: until the answer to the last one, or until this time.
        let mut paused = HashMap::<Arc<str>, Option<Instant>>::new();
        while let Some(Snapshot { identity, wanted, taken, changed }) = self.snapshot() {
            if requests.is_empty() && self.forget() {
                break;
            }
            paused.retain(|_, until| until.is_none_or(|until| until > Instant::now()));
            let surplus = taken.difference(&wanted).map(|uri| (uri, false));
            let missing = wanted.difference(&taken).map(|uri| (uri, true));
            let next = surplus.chain(missing).filter(|(uri, _)| !paused.contains_key(*uri));
            for (uri, subscribes) in next.take(MOST_REQUESTS.saturating_sub(requests.len())).collect::<Vec<_>>() {
                let session = self.session()?;
                if !subscribes {
                    self.with(|session| session.retain(|taken| *taken != **uri));
                }
                paused.insert(Arc::clone(uri), None);
                let (uri, identity) = (Arc::clone(uri), identity.clone());
                requests.push(async move {
                    let answer = session.subscribe((&uri, subscribes), identity).await;
                    (uri, subscribes, answer)
                });
            }
            tokio::select! {
                biased;
                Some((uri, subscribes, answer)) = requests.next() => {
                    paused.remove(&uri);
                    match answer {
                        Err(error @ BackendError::SessionLost) => return Err(error),
                        Ok(()) if subscribes => self.with(|session| session.taken(&uri)),
                        Err(error) if subscribes => {
                            tracing::debug!(%error, "the backend does not take a subscription");
                            if self.with(|session| session.refused(&uri)) {
                                paused.insert(uri, Some(Instant::now() + RETRY));
                            }
                        }
                        Ok(()) | Err(_) => {}
                    }
                }
                () = changed.notified() => {}
                Some(()) = OptionFuture::from(paused.values().flatten().min().map(|until| sleep_until(*until))) => {}
            }
        }
        Ok(())
    }

    /// Listens with a stream, as backends require since 2026-07-28. A stream with other URIs opens before the present
    /// stream closes, so that no update is missed.
    async fn by_streams(&self) -> Result<(), BackendError> {
        let (mut present, mut next) = (None::<Stream>, None);
        let mut resting_until = None;
        while let Some(Snapshot { identity, wanted, taken, changed }) = self.snapshot() {
            if wanted.is_empty() {
                (present, next) = (None, None);
                self.with(OfSession::lost);
                if self.forget() {
                    break;
                }
                continue;
            }
            // The present stream must have all wanted URIs that the backend accepts, and no others.
            let has_all = present.as_ref().is_some_and(|present| wanted.is_subset(&present.asked));
            let fits = has_all && taken.is_subset(&wanted);
            if !fits && next.is_none() && resting_until.is_none() {
                next = Some(open(&*self.session()?, wanted, identity).boxed());
            }
            tokio::select! {
                biased;
                Some((stream, acknowledged)) = OptionFuture::from(next.as_mut()) => {
                    next = None;
                    self.opened(&stream.asked, acknowledged.as_ref());
                    match acknowledged {
                        Some(_) => present = Some(stream),
                        None => resting_until = Some(Instant::now() + PAUSE),
                    }
                }
                Some(_) = OptionFuture::from(present.as_mut().map(|present| &mut present.end)) => {
                    present = None;
                    self.with(OfSession::lost);
                    resting_until = Some(Instant::now() + PAUSE);
                }
                () = changed.notified() => {}
                Some(()) = OptionFuture::from(resting_until.map(sleep_until)) => resting_until = None,
            }
        }
        Ok(())
    }

    /// Records the URIs that the backend has acknowledged in a new stream. Without an acknowledgement, the present
    /// stream goes on.
    fn opened(&self, asked: &BTreeSet<Arc<str>>, acknowledged: Option<&BTreeSet<Arc<str>>>) {
        let has = |uri: &str| acknowledged.is_some_and(|uris| uris.contains(uri));
        self.with(|session| {
            if acknowledged.is_some() {
                session.retain(has);
            }
            for uri in asked {
                match has(uri) {
                    true => session.taken(uri),
                    false => _ = session.refused(uri),
                }
            }
        });
    }

    /// Marks the session as used, again and again.
    async fn touch(&self) -> Infallible {
        loop {
            sleep(TOUCH).await;
            self.sessions.touch(self.key).await;
        }
    }

    fn session(&self) -> Result<Arc<Session>, BackendError> {
        self.session.upgrade().ok_or(BackendError::Ended)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.with(|session| Some(session.snapshot()))
    }

    fn forget(&self) -> bool {
        self.sessions.subscriptions().forget(self.key)
    }

    fn with<T: Default>(&self, apply: impl FnOnce(&mut OfSession) -> T) -> T {
        self.sessions.subscriptions().with(self.key, apply)
    }
}

/// Opens a stream of updates of these resources. Returns it with the acknowledged URIs, or without them if the backend
/// does not acknowledge it in time.
fn open(
    session: &Session,
    asked: BTreeSet<Arc<str>>,
    identity: Identity,
) -> impl Future<Output = (Stream, Option<BTreeSet<Arc<str>>>)> + Send + 'static {
    let (sender, mut acknowledgement) = mpsc::channel(1);
    let notices: OnNotice = Arc::new(move |notice| {
        if let Notice::Acknowledged(uris) = notice {
            _ = sender.try_send(uris);
        }
    });
    let mut end = session.listen(&asked, identity, notices).boxed();
    async move {
        let acknowledged = tokio::select! {
            biased;
            uris = acknowledgement.recv() => uris,
            _ = &mut end => None,
            () = sleep(ACKNOWLEDGED_WITHIN) => None,
        };
        let acknowledged =
            acknowledged.map(|uris| uris.iter().filter_map(|uri| asked.get(uri.as_str()).cloned()).collect());
        (Stream { asked, end }, acknowledged)
    }
}
