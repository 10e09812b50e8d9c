//! Sessions with a backend: one for each caller, or one for all callers. A new session replaces an ended one, after a
//! pause that grows with each failure.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use backon::{BackoffBuilder, ExponentialBuilder};
use mcp_entra_policy::BackendSessions;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::error::BackendError;
use super::held::{Budget, Held, Share};
use super::http::{self, Http};
use super::lines::Lines;
use super::link::Link;
use super::session::{Asking, Era, Session, Timeouts};
use super::subscriptions::{OfSession, Subscriptions};
use super::{Catalogue, Change, Identity, OnChange, OnListChange, Peer, Place, Request, is_shared};
use crate::raw_json::RawObject;

/// Maximum number of sessions of one pod over stdio. Each session is a process. The least recently used session ends
/// first.
const MOST_PROCESSES: u64 = 60;
/// Maximum number of sessions of one pod over HTTP.
const MOST_SESSIONS: u64 = 1_000;
/// Maximum number of requests that wait for the backend's answers.
const MOST_REQUESTS: usize = 512;
/// Maximum number of such requests of one caller.
const MOST_OF_CALLER: usize = 32;
/// Maximum number of callers whose requests are counted.
const MOST_CALLERS: u64 = 10_000;
/// Time after which an unused session ends.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Age at which lists are read again, if the backend reports no change.
const FRESH: Duration = Duration::from_secs(60);
/// Age at which lists are read again, if the backend reports a change. It limits the requests to a backend that
/// always reports changes.
const PATIENCE: Duration = Duration::from_millis(500);
/// Maximum age of lists that are served while new lists are read.
const LONGEST_SERVED: Duration = Duration::from_secs(180);
/// Maximum time that a call waits for new lists, if older lists can be served.
const READING: Duration = Duration::from_secs(1);
/// Maximum number of different lists that are compared.
const MOST_LISTED: usize = 32;
/// Pause after a failure. Each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Lifetime of a session after which its end does not count as a failure.
pub(super) const STABLE: Duration = Duration::from_secs(30);
/// Time within which a connection is tried again. The backend's program may have started just now.
const STARTING: Duration = Duration::from_secs(10);
const STARTING_PAUSE: Duration = Duration::from_millis(250);

/// All sessions with one backend.
pub struct Sessions {
    place: Place,
    client: reqwest::Client,
    is_shared: bool,
    slots: Cache<String, Arc<Slot>>,
    requests: Semaphore,
    memory: Share,
    timeouts: Timeouts,
    of_callers: Cache<String, Arc<OfCaller>>,
    /// Era of the backend, as the last session found it.
    era: Lock<Option<Era>>,
    changes: OnListChange,
    subscriptions: Arc<Subscriptions>,
    /// The catalogue that was read last. Equal catalogues are kept once.
    latest: Lock<Option<([u8; 32], Arc<Catalogue>)>>,
}

/// A caller's share of requests and memory.
struct OfCaller {
    requests: Semaphore,
    memory: Share,
}

impl Default for OfCaller {
    fn default() -> Self {
        Self { requests: Semaphore::new(MOST_OF_CALLER), memory: Share::of_caller() }
    }
}

/// The slot of one session, with its lists.
#[derive(Default)]
struct Slot {
    key: String,
    state: Mutex<State>,
    /// Locked while the lists are read. Calls do not wait for it.
    reading: Mutex<()>,
    read: ArcSwapOption<Read>,
    /// Set by a change of the lists.
    is_stale: Arc<AtomicBool>,
}

impl Slot {
    /// Returns the lists, if they are younger than this age.
    fn no_older(&self, age: Duration) -> Option<Arc<Read>> {
        self.read.load_full().filter(|read| read.at.elapsed() < age)
    }

    /// Returns the lists, if they need not be read again.
    fn fresh(&self) -> Option<Arc<Read>> {
        self.no_older(if self.is_stale.load(Ordering::Acquire) { PATIENCE } else { FRESH })
    }
}

impl Read {
    fn told(&self) -> (Arc<Catalogue>, Peer) {
        (Arc::clone(&self.catalogue), self.peer.clone())
    }
}

/// Lists that were read.
struct Read {
    at: Instant,
    catalogue: Arc<Catalogue>,
    peer: Peer,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    begun_at: Option<Instant>,
    /// Number of failures in a row.
    failures: u32,
    resting_until: Option<Instant>,
}

impl Sessions {
    /// Returns the sessions with the backend at this address. `changes` is called when its lists may have changed.
    ///
    /// # Errors
    /// If the HTTP client cannot be made.
    pub fn new(place: Place, sessions: BackendSessions, changes: OnListChange) -> Result<Self, reqwest::Error> {
        let most = match &place {
            Place::Socket(_) => MOST_PROCESSES,
            Place::Endpoint(_) => MOST_SESSIONS,
        };
        Self::within((most, IDLE), place, sessions, changes)
    }

    /// Returns sessions with these limits: the maximum number, and the time after which an unused session ends.
    fn within(
        (most, idle): (u64, Duration),
        place: Place,
        sessions: BackendSessions,
        changes: OnListChange,
    ) -> Result<Self, reqwest::Error> {
        let slots =
            Cache::builder().max_capacity(most).time_to_idle(idle).eviction_policy(EvictionPolicy::lru()).build();
        let is_shared = is_shared(sessions);
        Ok(Self {
            place,
            client: http::client()?,
            is_shared,
            slots,
            requests: Semaphore::new(MOST_REQUESTS),
            memory: Share::of_all(),
            timeouts: Timeouts::default(),
            of_callers: Cache::builder().max_capacity(MOST_CALLERS).time_to_idle(IDLE).build(),
            era: Lock::default(),
            changes,
            subscriptions: Arc::default(),
            latest: Lock::default(),
        })
    }

    /// Sends a request to the backend in the session of this caller, and returns the result.
    ///
    /// # Errors
    /// If there is no answer, or it is an error.
    pub async fn ask(
        self: &Arc<Self>,
        caller: &str,
        request: &Request<'_>,
        identity: &Identity,
    ) -> Result<(RawObject, Held), BackendError> {
        let of_caller = self.of_callers.get_with(caller.to_owned(), async { Arc::default() }).await;
        let _own = of_caller.requests.try_acquire().map_err(|_| BackendError::Busy("you have", MOST_OF_CALLER))?;
        let _place = self.requests.try_acquire().map_err(|_| BackendError::Busy("this pod has", MOST_REQUESTS))?;
        let memory = Budget { caller: Some(of_caller.memory.clone()), all: self.memory.clone() };
        let session = self.session(caller, identity).await?;
        let Request { method, params, name, repeated, capabilities, log_level, notices } = request;
        let asking = || Asking {
            method,
            params: params.clone(),
            name: *name,
            repeated: repeated.clone(),
            capabilities: capabilities.clone(),
            identity: identity.clone(),
            log_level: log_level.as_deref(),
            notices: notices.clone(),
            memory: Some(memory.clone()),
        };
        let (answer, mut held) = match session.ask(asking()).await {
            // The backend has refused the session, so nothing has run.
            Err(BackendError::SessionLost) => {
                self.ended(caller, &session).await;
                self.session(caller, identity).await?.ask(asking()).await?
            }
            answer => answer?,
        };
        held.count_for(&of_caller.memory)?;
        Ok((answer, held))
    }

    /// Returns the backend's lists for this caller, and its description of itself.
    ///
    /// # Errors
    /// If the backend does not answer.
    pub async fn catalogue(
        self: &Arc<Self>,
        caller: &str,
        identity: &Identity,
    ) -> Result<(Arc<Catalogue>, Peer), BackendError> {
        let slot = self.slot(caller).await;
        self.session(caller, identity).await?;
        if let Some(read) = slot.fresh() {
            return Ok(read.told());
        }
        let before = slot.no_older(LONGEST_SERVED);
        if let (Err(_), Some(before)) = (slot.reading.try_lock(), &before) {
            return Ok(before.told());
        }
        let reading = tokio::spawn(Arc::clone(self).read(slot, caller.to_owned(), (identity.clone(), true)));
        let read = match before {
            // A hanging list must not delay calls.
            Some(before) => match timeout(READING, reading).await {
                Ok(read) => read,
                Err(_) => return Ok(before.told()),
            },
            None => reading.await,
        };
        Ok(read.unwrap_or(Err(BackendError::Ended))?.told())
    }

    /// Returns the same as [`Self::catalogue`], and always reads the lists again.
    ///
    /// # Errors
    /// If the backend does not answer.
    pub async fn new_catalogue(
        self: &Arc<Self>,
        caller: &str,
        identity: &Identity,
    ) -> Result<(Arc<Catalogue>, Peer), BackendError> {
        let slot = self.slot(caller).await;
        Ok(Arc::clone(self).read(slot, caller.to_owned(), (identity.clone(), false)).await?.told())
    }

    /// Reads the lists, one reader at a time. With `may_be_fresh`, returns the lists that another reader has just
    /// read.
    async fn read(
        self: Arc<Self>,
        slot: Arc<Slot>,
        caller: String,
        (identity, may_be_fresh): (Identity, bool),
    ) -> Result<Arc<Read>, BackendError> {
        let mut session = self.session(&caller, &identity).await?;
        let _reading = slot.reading.lock().await;
        if let Some(read) = slot.fresh().filter(|_| may_be_fresh) {
            return Ok(read);
        }
        slot.is_stale.store(false, Ordering::Release);
        let mut read = Catalogue::read(&session, &identity).await;
        if matches!(read, Err(BackendError::SessionLost)) {
            self.ended(&caller, &session).await;
            session = self.session(&caller, &identity).await?;
            read = Catalogue::read(&session, &identity).await;
        }
        if matches!(read, Err(BackendError::SessionLost | BackendError::Ended)) {
            self.ended(&caller, &session).await;
        }
        let catalogue = self.kept(read.inspect_err(|_| slot.read.store(None))?);
        let read = Arc::new(Read { at: Instant::now(), catalogue, peer: session.peer().clone() });
        slot.read.store(Some(Arc::clone(&read)));
        Ok(read)
    }

    /// Returns the lists that callers have seen recently, each once, with the backend's description of itself.
    pub fn listed(&self) -> Vec<(Arc<Catalogue>, Peer)> {
        let mut listed = Vec::<(Arc<Catalogue>, Peer)>::new();
        for (_, slot) in &self.slots {
            let Some(read) = slot.no_older(LONGEST_SERVED) else { continue };
            if listed.iter().all(|(known, _)| !Arc::ptr_eq(known, &read.catalogue)) {
                listed.push(read.told());
            }
            if listed.len() == MOST_LISTED {
                break;
            }
        }
        listed
    }

    /// Returns the subscriptions of all sessions.
    pub(super) fn subscriptions(&self) -> &Arc<Subscriptions> {
        &self.subscriptions
    }

    /// Marks a session as used.
    pub(super) async fn touch(&self, caller: &str) {
        _ = self.slots.get(&self.key(caller)).await;
    }

    async fn slot(&self, caller: &str) -> Arc<Slot> {
        let key = self.key(caller);
        self.slots.get_with_by_ref(&key, async { Arc::new(Slot { key: key.clone(), ..Slot::default() }) }).await
    }

    /// Returns the key of this caller's session.
    pub(super) fn key(&self, caller: &str) -> String {
        if self.is_shared { String::new() } else { caller.to_owned() }
    }

    /// Returns the session of a caller, and begins one if none is alive. A session continues to begin after the
    /// caller gives up. A program that starts slowly is then ready for the next call.
    pub(super) async fn session(
        self: &Arc<Self>,
        caller: &str,
        identity: &Identity,
    ) -> Result<Arc<Session>, BackendError> {
        let slot = self.slot(caller).await;
        if let Some(session) = slot.state.lock().await.living() {
            return Ok(session);
        }
        let (sessions, identity) = (Arc::clone(self), identity.clone());
        let begun = async move { sessions.begun(&slot, &mut *slot.state.lock().await, &identity).await };
        tokio::spawn(begun).await.unwrap_or(Err(BackendError::Ended))
    }

    /// Returns the session of a slot, and begins one if none is alive.
    async fn begun(&self, slot: &Slot, state: &mut State, identity: &Identity) -> Result<Arc<Session>, BackendError> {
        if let Some(session) = state.living() {
            return Ok(session);
        }
        if state.session.take().is_some() {
            state.failed();
        }
        if let Some(until) = state.resting_until.filter(|until| *until > Instant::now()) {
            let seconds = (until - Instant::now()).as_secs() + 1;
            return Err(BackendError::Resting { times: state.failures, seconds });
        }
        match self.begin(slot, identity).await {
            Ok(session) => {
                let session = Arc::new(session);
                state.session = Some(Arc::clone(&session));
                state.begun_at = Some(Instant::now());
                slot.read.store(None);
                Ok(session)
            }
            Err(error) => {
                // A refusal of the user is no failure of the backend.
                if !matches!(error, BackendError::Unauthorized(_) | BackendError::Forbidden) {
                    *lock(&self.era) = None;
                    state.failed();
                }
                Err(error)
            }
        }
    }

    async fn begin(&self, slot: &Slot, identity: &Identity) -> Result<Session, BackendError> {
        let mut known = *lock(&self.era);
        let deadline = Instant::now() + STARTING;
        let session = loop {
            let begun = match self.connect(slot).await {
                Ok(link) => Session::begin(link, (self.memory.clone(), self.timeouts), (known, identity)).await,
                Err(error) => Err(error),
            };
            match begun {
                Err(BackendError::Away(_)) if Instant::now() < deadline => tokio::time::sleep(STARTING_PAUSE).await,
                // Some backends answer nothing before the handshake.
                Err(BackendError::Silent(_)) if known.is_none() => known = Some(Era::Legacy),
                begun => break begun?,
            }
        };
        *lock(&self.era) = Some(session.era());
        Ok(session)
    }

    async fn connect(&self, slot: &Slot) -> Result<Link, BackendError> {
        let (key, is_stale) = (slot.key.clone(), Arc::clone(&slot.is_stale));
        let (subscriptions, tell) = (Arc::clone(&self.subscriptions), Arc::clone(&self.changes));
        let changes: OnChange = Arc::new(move |change| match change {
            Change::Lists => {
                is_stale.store(true, Ordering::Release);
                tell();
            }
            Change::Resource(uri) => subscriptions.with(&key, |session| session.updated(&uri)),
            Change::Missed => subscriptions.with(&key, OfSession::missed),
        });
        match &self.place {
            Place::Socket(socket) => Lines::connect(socket, self.memory.clone(), changes).await.map(Link::Lines),
            Place::Endpoint(url) => Ok(Link::Http(Http::new(self.client.clone(), url.clone(), changes))),
        }
    }

    /// Forgets a session that the backend no longer knows.
    pub(super) async fn ended(&self, caller: &str, ended: &Arc<Session>) {
        ended.ended().cancel();
        let slot = self.slot(caller).await;
        let mut state = slot.state.lock().await;
        if state.session.as_ref().is_some_and(|session| Arc::ptr_eq(session, ended)) {
            state.session = None;
        }
    }

    /// Returns this catalogue, or the equal one that is already kept.
    fn kept(&self, catalogue: Catalogue) -> Arc<Catalogue> {
        let digest = catalogue.digest();
        let mut latest = lock(&self.latest);
        match &*latest {
            Some((known, kept)) if *known == digest => Arc::clone(kept),
            _ => {
                let catalogue = Arc::new(catalogue);
                *latest = Some((digest, Arc::clone(&catalogue)));
                catalogue
            }
        }
    }
}

/// Returns the pauses after failures in a row. Each is twice as long as the one before, up to a maximum.
pub(super) fn growing_pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE).without_max_times().build()
}

fn lock<T>(value: &Lock<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn living(&self) -> Option<Arc<Session>> {
        self.session.as_ref().filter(|session| session.is_alive()).map(Arc::clone)
    }

    /// Records that a session has ended, or could not begin. The end of a stable session causes no pause.
    fn failed(&mut self) {
        if self.begun_at.take().is_some_and(|begun_at| begun_at.elapsed() > STABLE) {
            self.failures = 0;
            return;
        }
        let pause = growing_pauses().nth(self.failures.min(10) as usize).unwrap_or(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.resting_until = Some(Instant::now() + pause);
    }
}
