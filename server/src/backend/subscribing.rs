//! Subscriptions of one session at the backend. Makes and ends them as listeners need, and makes them again in the
//! next session.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::error::BackendError;
use super::session::{Era, Session};
use super::sessions::Sessions;
use super::subscriptions::{Subscriptions, Updates};
use super::{Identity, Notice, OnNotice};

/// Maximum number of requests of one session that wait for their answers.
const MOST_REQUESTS: usize = 8;
/// Time limit for a backend to acknowledge a stream.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);
/// Pause before a stream that has ended is opened again.
const PAUSE: Duration = Duration::from_secs(5);
/// Pause before another attempt, if the next session has refused a subscription.
const RETRY: Duration = Duration::from_secs(30);
/// Pause after the end of a session. Each further short session doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Lifetime of a session after which the pause is short again.
const STABLE: Duration = Duration::from_secs(30);
/// Time without events after which a session with listeners is marked as used.
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

/// Keeps the subscriptions of a session at the backend until nobody needs any.
async fn keep(sessions: Arc<Sessions>, key: String) {
    let subscriptions = Arc::clone(sessions.subscriptions());
    let mut pause = FIRST_PAUSE;
    while let Some(difference) = subscriptions.difference(&key).filter(|_| !subscriptions.forget(&key)) {
        let begun_at = Instant::now();
        if let Ok(session) = sessions.session(&key, &difference.identity).await {
            let (era, ended) = (session.era(), session.ended());
            // The weak reference lets the cache evict the session in spite of listeners.
            let (session, sessions) = (Arc::downgrade(&session), &sessions);
            let keeper = Keeper { sessions, subscriptions: &subscriptions, key: &key, session, ended };
            let end = match era {
                Era::Legacy => keeper.by_requests().await,
                Era::Modern => keeper.by_streams().await,
            };
            if end == End::Unwanted {
                return;
            }
            keeper.forget().await;
        }
        subscriptions.lost(&key);
        if begun_at.elapsed() > STABLE {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = difference.changed.notified() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The reason why a keeper has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nobody listens any longer. Another keeper may have begun.
    Unwanted,
    /// The session has ended.
    Session,
}

/// The keeper of the subscriptions in one session.
struct Keeper<'a> {
    sessions: &'a Arc<Sessions>,
    subscriptions: &'a Arc<Subscriptions>,
    key: &'a str,
    session: Weak<Session>,
    ended: CancellationToken,
}

/// A completed request about one URI.
struct Answered {
    uri: Arc<str>,
    subscribes: bool,
    answer: Result<(), BackendError>,
}

/// A stream of notifications.
struct Stream {
    asked: BTreeSet<Arc<str>>,
    /// The URIs that the backend has acknowledged.
    acknowledged: BTreeSet<Arc<str>>,
    end: BoxFuture<'static, Result<(), BackendError>>,
}

/// A stream that the backend has not acknowledged yet.
struct Opening {
    stream: Stream,
    acknowledgement: mpsc::Receiver<HashSet<String>>,
    until: Instant,
}

impl Keeper<'_> {
    /// Subscribes and unsubscribes with one request for each URI, as backends with a handshake require.
    async fn by_requests(&self) -> End {
        let (mut requests, mut busy) = (FuturesUnordered::<BoxFuture<'static, Answered>>::new(), BTreeSet::new());
        let mut resting = HashMap::<Arc<str>, Instant>::new();
        let mut touches = interval(TOUCH);
        while let Some(difference) = self.subscriptions.difference(self.key) {
            if requests.is_empty() && self.subscriptions.forget(self.key) {
                break;
            }
            resting.retain(|_, until| *until > Instant::now());
            let surplus = difference.surplus.into_iter().map(|uri| (uri, false));
            let missing = difference.missing.into_iter().map(|uri| (uri, true));
            for (uri, subscribes) in surplus.chain(missing).filter(|(uri, _)| !resting.contains_key(uri)) {
                let Some(session) = self.session.upgrade() else { return End::Session };
                if requests.len() >= MOST_REQUESTS {
                    break;
                }
                if !busy.insert(Arc::clone(&uri)) {
                    continue;
                }
                if !subscribes {
                    self.subscriptions.left(self.key, &uri);
                }
                requests.push(Box::pin(ask(session, (uri, subscribes), difference.identity.clone())));
            }
            tokio::select! {
                biased;
                () = self.ended.cancelled() => return End::Session,
                Some(answered) = requests.next() => {
                    busy.remove(&answered.uri);
                    if matches!(answered.answer, Err(BackendError::SessionLost)) {
                        self.ended.cancel();
                        return End::Session;
                    }
                    if let Some(uri) = self.failed_again(answered) {
                        resting.insert(uri, Instant::now() + RETRY);
                    }
                }
                () = difference.changed.notified() => {}
                () = at(resting.values().min().copied()) => {}
                _ = touches.tick() => self.sessions.touch(self.key).await,
            }
        }
        End::Unwanted
    }

    /// Records an answer. Returns the URI if listeners lose a subscription that they had before.
    fn failed_again(&self, Answered { uri, subscribes, answer }: Answered) -> Option<Arc<str>> {
        match answer {
            Ok(()) if subscribes => self.subscriptions.taken(self.key, &uri),
            Err(error) if subscribes => {
                tracing::debug!(%error, "the backend refuses a subscription");
                return self.subscriptions.refused(self.key, &uri).then_some(uri);
            }
            Ok(()) | Err(_) => {}
        }
        None
    }

    /// Listens with a stream, as backends require since 2026-07-28. A stream with other URIs opens before the present
    /// stream closes, so that no update is missed.
    async fn by_streams(&self) -> End {
        let (mut present, mut next) = (None::<Stream>, None::<Opening>);
        let mut resting_until = None::<Instant>;
        let mut touches = interval(TOUCH);
        while let Some(difference) = self.subscriptions.difference(self.key) {
            if difference.wanted.is_empty() {
                (present, next) = (None, None);
                self.subscriptions.lost(self.key);
                if self.subscriptions.forget(self.key) {
                    break;
                }
                continue;
            }
            resting_until = resting_until.filter(|until| *until > Instant::now());
            let fits = present.as_ref().is_some_and(|present| present.fits(&difference.wanted));
            if !fits && next.is_none() && resting_until.is_none() {
                let Some(session) = self.session.upgrade() else { return End::Session };
                next = Some(Opening::of(&session, difference.wanted, difference.identity));
            }
            let until = next.as_ref().map(|next| next.until);
            tokio::select! {
                biased;
                () = self.ended.cancelled() => return End::Session,
                acknowledged = acknowledged(&mut next) => match (acknowledged, next.take()) {
                    (Some(uris), Some(opening)) => present = Some(self.acknowledged(opening.stream, &uris)),
                    (_, opening) => resting_until = Some(self.failed(opening)),
                },
                () = at(until) => resting_until = Some(self.failed(next.take())),
                () = end(&mut present) => {
                    present = None;
                    self.subscriptions.lost(self.key);
                    resting_until = Some(Instant::now() + PAUSE);
                }
                () = difference.changed.notified() => {}
                () = at(resting_until) => {}
                _ = touches.tick() => self.sessions.touch(self.key).await,
            }
        }
        End::Unwanted
    }

    /// Accepts a stream that the backend has acknowledged for these URIs.
    fn acknowledged(&self, mut stream: Stream, uris: &HashSet<String>) -> Stream {
        stream.acknowledged = stream.asked.iter().filter(|uri| uris.contains(&***uri)).cloned().collect();
        self.subscriptions.only(self.key, &stream.acknowledged);
        for uri in &stream.asked {
            match stream.acknowledged.contains(uri) {
                true => self.subscriptions.taken(self.key, uri),
                false => {
                    self.subscriptions.refused(self.key, uri);
                }
            }
        }
        stream
    }

    /// Drops a stream that was not acknowledged. Returns the time of the next attempt.
    fn failed(&self, opening: Option<Opening>) -> Instant {
        for uri in opening.into_iter().flat_map(|opening| opening.stream.asked) {
            self.subscriptions.refused(self.key, &uri);
        }
        Instant::now() + PAUSE
    }

    /// Forgets a session over HTTP that the backend no longer knows. The end of a process needs no such record.
    async fn forget(&self) {
        let lost = self.session.upgrade().filter(|session| self.ended.is_cancelled() && session.is_alive());
        if let Some(session) = lost {
            self.sessions.ended(self.key, &session).await;
        }
    }
}

impl Stream {
    /// Returns true if the stream has all wanted URIs that the backend accepts, and no others.
    fn fits(&self, wanted: &BTreeSet<Arc<str>>) -> bool {
        wanted.is_subset(&self.asked) && self.acknowledged.is_subset(wanted)
    }
}

impl Opening {
    /// Returns a new stream of updates of these resources.
    fn of(session: &Session, asked: BTreeSet<Arc<str>>, identity: Identity) -> Self {
        let (sender, acknowledgement) = mpsc::channel(1);
        let notices: OnNotice = Arc::new(move |notice| {
            if let Notice::Acknowledged(uris) = notice {
                _ = sender.try_send(uris.into_iter().collect());
            }
        });
        let uris = Vec::from_iter(asked.iter().map(|uri| &**uri));
        let end = session.listen(&json!({ "resourceSubscriptions": uris }), identity, notices).boxed();
        let stream = Stream { asked, acknowledged: BTreeSet::new(), end };
        Self { stream, acknowledgement, until: Instant::now() + ACKNOWLEDGED_WITHIN }
    }
}

/// Subscribes to a URI, or unsubscribes from it.
async fn ask(session: Arc<Session>, (uri, subscribes): (Arc<str>, bool), identity: Identity) -> Answered {
    let method = if subscribes { "resources/subscribe" } else { "resources/unsubscribe" };
    let answer = session.ask_about(method, &uri, identity).await;
    Answered { uri, subscribes, answer }
}

/// Waits for the acknowledgement of a stream. Returns `None` if the stream ends before it. Never returns without a
/// stream.
async fn acknowledged(opening: &mut Option<Opening>) -> Option<HashSet<String>> {
    let Some(Opening { stream, acknowledgement, .. }) = opening else { return std::future::pending().await };
    tokio::select! {
        biased;
        uris = acknowledgement.recv() => uris,
        _ = &mut stream.end => None,
    }
}

/// Waits for the end of a stream. Never returns without a stream.
async fn end(stream: &mut Option<Stream>) {
    match stream {
        Some(stream) => drop((&mut stream.end).await),
        None => std::future::pending().await,
    }
}

/// Waits until this time. Never returns without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
