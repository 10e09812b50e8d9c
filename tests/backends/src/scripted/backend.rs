//! State that all calls share, and the reception of messages.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::message::{self, Message};
use super::outlet::{Outlet, Output};
use super::subscriptions::Subscriptions;
use super::{Listed, Options, Received, methods};

/// Maximum number of messages that are kept for tests.
const KEPT: usize = 10_000;
/// The only session of stdio.
const STDIO: &str = "";

/// The process that the backend runs in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Host {
    /// Process of a test, which must not be ended or signalled.
    Test,
    /// Separate process of the program.
    Program,
}

/// The origin of a message.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Headers of its HTTP request.
    pub(super) headers: Vec<(String, String)>,
    /// Its session over HTTP.
    pub(super) session: Option<String>,
}

impl Source {
    /// The key of the session.
    pub(super) fn session(&self) -> &str {
        self.session.as_deref().unwrap_or(STDIO)
    }
}

/// A backend.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) options: Options,
    pub(super) host: Host,
    /// Cancelled when the backend ends.
    pub(super) end: CancellationToken,
    pub(super) subscriptions: Subscriptions,
    /// Names of given signals, for waiting calls.
    pub(super) signals: watch::Sender<HashSet<String>>,
    /// Calls that wait for a second one.
    pub(super) held: Mutex<Vec<Call>>,
    /// Changed members of the tool `add`.
    pub(super) changes: Mutex<BTreeSet<String>>,
    pub(super) listed: Mutex<Listed>,
    started: Instant,
    number: AtomicU64,
    received: Mutex<Vec<Received>>,
    sessions: Mutex<HashSet<String>>,
    questions: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    running: Mutex<HashMap<(String, String), CancellationToken>>,
    cancelled: Mutex<Vec<String>>,
    lingers: AtomicBool,
}

impl Backend {
    pub(super) fn new(options: Options, host: Host) -> Arc<Self> {
        Arc::new(Self {
            host,
            end: CancellationToken::new(),
            subscriptions: Subscriptions::default(),
            signals: watch::Sender::new(HashSet::new()),
            held: Mutex::default(),
            changes: Mutex::default(),
            listed: Mutex::new(options.listed),
            started: Instant::now(),
            number: AtomicU64::new(0),
            received: Mutex::default(),
            sessions: Mutex::default(),
            questions: Mutex::default(),
            running: Mutex::default(),
            cancelled: Mutex::default(),
            lingers: AtomicBool::new(false),
            options,
        })
    }

    /// Takes a message. A separate task answers a request.
    pub(super) async fn receive(self: &Arc<Self>, text: String, source: Source, outlet: Outlet) {
        sleep_until(self.started + Duration::from_millis(self.options.slow_start)).await;
        let message = Message::parse(&text);
        self.record(text, &source);
        let Some(message) = message else {
            outlet.send(Output::Answer(message::error("null", -32700, "Parse error", &Value::Null))).await;
            return;
        };
        match (message.id.clone(), message.method.as_deref()) {
            (Some(id), Some(_)) => {
                let stop = self.end.child_token();
                let key = (source.session().to_owned(), id.clone());
                lock(&self.running).insert(key.clone(), stop.clone());
                let call = Call { backend: self.clone(), message, id, source, outlet, stop };
                let backend = self.clone();
                tokio::spawn(async move {
                    methods::answer(call).await;
                    lock(&backend.running).remove(&key);
                });
            }
            (Some(id), None) => {
                if let Some(question) = lock(&self.questions).remove(&id) {
                    // The waiting call may have ended.
                    question.send(message.whole).ok();
                }
            }
            (None, _) => self.notice(&message, &source),
        }
    }

    fn notice(&self, message: &Message, source: &Source) {
        if message.method.as_deref() != Some("notifications/cancelled") {
            return;
        }
        let id = message.params.get("requestId").map(Value::to_string).unwrap_or_default();
        if let Some(stop) = lock(&self.running).get(&(source.session().to_owned(), id)) {
            stop.cancel();
        }
    }

    /// Returns a unique number.
    pub(super) fn next(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a question to the client. Returns its id, and a receiver of the answer.
    pub(super) fn question(&self) -> (String, oneshot::Receiver<Value>) {
        let id = format!("\"of-backend-{}\"", self.next());
        let (sender, receiver) = oneshot::channel();
        lock(&self.questions).insert(id.clone(), sender);
        (id, receiver)
    }

    pub(super) fn open_session(&self, session: &str) {
        lock(&self.sessions).insert(session.to_owned());
    }

    pub(super) fn knows_session(&self, session: &str) -> bool {
        lock(&self.sessions).contains(session)
    }

    pub(super) fn close_session(&self, session: &str) {
        lock(&self.sessions).remove(session);
        self.subscriptions.end(session);
    }

    pub(super) fn forget_sessions(&self) {
        let sessions: Vec<_> = lock(&self.sessions).drain().collect();
        sessions.iter().for_each(|session| self.subscriptions.end(session));
    }

    /// The number of open sessions.
    pub(super) fn sessions(&self) -> usize {
        lock(&self.sessions).len()
    }

    fn record(&self, body: String, source: &Source) {
        let mut received = lock(&self.received);
        if received.len() < KEPT {
            received.push(Received { body, headers: source.headers.clone() });
        }
    }

    pub(super) fn received(&self) -> Vec<Received> {
        lock(&self.received).clone()
    }

    /// Records that a call of this tool ended because the client cancelled it.
    pub(super) fn note_cancelled(&self, tool: &str) {
        lock(&self.cancelled).push(tool.to_owned());
    }

    /// The tools whose calls were cancelled.
    pub(super) fn cancelled(&self) -> Vec<String> {
        lock(&self.cancelled).clone()
    }

    /// Keeps the process running after the end of its input.
    pub(super) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    pub(super) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }
}

/// Locks a value that a panic cannot leave inconsistent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
