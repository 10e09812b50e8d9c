//! Sessions with a backend: one for each caller, or one for all. One that has ended is begun anew, after a pause that grows
//! while that fails.

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
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
use super::subscriptions::Subscriptions;
use super::{Catalogue, Change, Identity, OnChange, OnListChange, Peer, Place, Request, is_shared};
use crate::raw_json::RawObject;

/// Sessions of one pod over stdio, each of which is a process. The least recently used ends first.
const MOST_PROCESSES: u64 = 60;
/// Sessions of one pod over HTTP.
const MOST_SESSIONS: u64 = 1_000;
/// Requests that wait for the backend's answer at a time.
const MOST_REQUESTS: usize = 512;
/// Those of one caller.
const MOST_OF_CALLER: usize = 32;
/// Callers whose requests are counted.
const MOST_CALLERS: u64 = 10_000;
/// Time after which a session that nobody uses ends.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Age at which lists are read again, if the backend tells of no change.
const FRESH: Duration = Duration::from_secs(60);
/// The same after it has told of one, so that one which tells of them all the time is not asked all the time.
const PATIENCE: Duration = Duration::from_millis(500);
/// Age up to which lists serve while they are read anew.
const LONGEST_SERVED: Duration = Duration::from_secs(180);
/// Time that a call waits for lists that are read anew, if there are others that serve.
const READING: Duration = Duration::from_secs(1);
/// Lists of different callers that are compared.
const MOST_LISTED: usize = 32;
/// Pause after a failure, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Life of a session after which its end is no failure in a row.
const STABLE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Time within which a connection is tried again: the backend's program may have just been started.
const STARTING: Duration = Duration::from_secs(10);
const STARTING_PAUSE: Duration = Duration::from_millis(250);

/// The sessions.
pub struct Sessions {
    place: Place,
    client: reqwest::Client,
    is_shared: bool,
    slots: Cache<String, Arc<Slot>>,
    requests: Semaphore,
    memory: Share,
    timeouts: Timeouts,
    of_callers: Cache<String, Arc<OfCaller>>,
    /// The manner of the backend, as the last session found it.
    era: Lock<Option<Era>>,
    changes: OnListChange,
    subscriptions: Arc<Subscriptions>,
    /// The catalogue that was read last: equal ones are kept once.
    latest: Lock<Option<([u8; 32], Arc<Catalogue>)>>,
}

/// A caller's share of what there is.
struct OfCaller {
    requests: Semaphore,
    memory: Share,
}

impl Default for OfCaller {
    fn default() -> Self {
        Self { requests: Semaphore::new(MOST_OF_CALLER), memory: Share::of_caller() }
    }
}

/// The place of one session.
#[derive(Default)]
struct Slot {
    key: String,
    state: Mutex<State>,
    /// Held while the lists are read. Calls do not wait for it.
    reading: Mutex<()>,
    read: ArcSwapOption<Read>,
    /// Set by a change of the lists.
    is_stale: Arc<AtomicBool>,
}

impl Slot {
    /// The lists that were read no longer ago than this.
    fn no_older(&self, age: Duration) -> Option<Arc<Read>> {
        self.read.load_full().filter(|read| read.at.elapsed() < age)
    }

    /// The lists, if they need not be read anew.
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
    /// Failures in a row.
    failures: u32,
    resting_until: Option<Instant>,
}

impl Sessions {
    /// The sessions with the backend at this place, which tells of changes of its lists.
    ///
    /// # Errors
    /// If there is no client for HTTP.
    pub fn new(place: Place, sessions: BackendSessions, changes: OnListChange) -> Result<Self, reqwest::Error> {
        let most = match &place {
            Place::Socket(_) => MOST_PROCESSES,
            Place::Endpoint(_) => MOST_SESSIONS,
        };
        Self::within((most, IDLE), place, sessions, changes)
    }

    /// So many sessions, each of which ends after such a time without use.
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

    /// Asks the backend in the session of this caller.
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
            // The backend has refused the session, so that nothing has run.
            Err(BackendError::SessionLost) => {
                self.ended(caller, &session).await;
                self.session(caller, identity).await?.ask(asking()).await?
            }
            answer => answer?,
        };
        held.count_for(&of_caller.memory)?;
        Ok((answer, held))
    }

    /// Returns what the backend has for this caller, and its description of itself.
    ///
    /// # Errors
    /// If it does not answer.
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
            // A list that hangs holds up no call.
            Some(before) => match timeout(READING, reading).await {
                Ok(read) => read,
                Err(_) => return Ok(before.told()),
            },
            None => reading.await,
        };
        Ok(read.unwrap_or(Err(BackendError::Ended))?.told())
    }

    /// The same, read anew.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn new_catalogue(
        self: &Arc<Self>,
        caller: &str,
        identity: &Identity,
    ) -> Result<(Arc<Catalogue>, Peer), BackendError> {
        let slot = self.slot(caller).await;
        Ok(Arc::clone(self).read(slot, caller.to_owned(), (identity.clone(), false)).await?.told())
    }

    /// Reads the lists, one reader at a time. Those that another has just read will do, if `may_be_fresh`.
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

    /// The lists that callers were shown lately, each once, with the backend's description of itself.
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

    /// The subscriptions of all sessions.
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

    /// The key of the session of this caller.
    pub(super) fn key(&self, caller: &str) -> String {
        if self.is_shared { String::new() } else { caller.to_owned() }
    }

    /// The session of a caller, begun if there is none that lives. It goes on to begin when the caller gives up, so that a
    /// program which starts slowly is there for the next call.
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

    /// The session of a slot, begun if there is none that lives.
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
                // A refusal of the user says nothing about the backend.
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
                // Some wait for the handshake in silence.
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
            Change::Resource(uri) => subscriptions.updated(&key, &uri),
            Change::Missed => subscriptions.missed(&key),
        });
        match &self.place {
            Place::Socket(socket) => Lines::connect(socket, self.memory.clone(), changes).await.map(Link::Lines),
            Place::Endpoint(url) => Ok(Link::Http(Http::new(self.client.clone(), url.clone(), changes))),
        }
    }

    /// Forgets a session of which the backend knows nothing any longer.
    pub(super) async fn ended(&self, caller: &str, ended: &Arc<Session>) {
        ended.ended().cancel();
        let slot = self.slot(caller).await;
        let mut state = slot.state.lock().await;
        if state.session.as_ref().is_some_and(|session| Arc::ptr_eq(session, ended)) {
            state.session = None;
        }
    }

    /// This catalogue, or the equal one that is kept already.
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

fn lock<T>(value: &Lock<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn living(&self) -> Option<Arc<Session>> {
        self.session.as_ref().filter(|session| session.is_alive()).map(Arc::clone)
    }

    /// Notes that a session has ended, or could not begin. The first end of one that was stable takes no pause.
    fn failed(&mut self) {
        if self.begun_at.take().is_some_and(|begun_at| begun_at.elapsed() > STABLE) {
            self.failures = 0;
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10).saturating_sub(1)).min(LONGEST_PAUSE);
        self.resting_until = Some(Instant::now() + pause);
    }
}
