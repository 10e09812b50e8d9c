//! MCP with one client over lines of JSON. Messages are already decided, and answers are sent as text.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::running::{Running, Step};
use super::unanswered::Unanswered;
use super::{Answer, Exchange, Protocol};
use crate::audit::Recording;
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::authorize::{Message, Method};
use crate::offer::Offer;

/// Timeout of a client's answer to our request: its user may have to see it.
const INPUT_PATIENCE: Duration = Duration::from_secs(20);

/// An accepted message.
pub enum LetIn {
    /// A request or a notification.
    Judged {
        /// The decided message.
        message: Box<Message>,
        /// The facts about it for the protocol.
        exchange: Box<Exchange>,
        /// The recording, which is held while the request runs.
        recording: Recording,
    },
    /// An answer to our request.
    Answer {
        /// The id of the request.
        id: Value,
        /// The result; null for an error.
        result: Value,
    },
}

/// Messages to one client, as JSON texts in order, and the requests that wait for an answer.
#[derive(Clone)]
pub struct Outgoing {
    /// The messages.
    pub lines: mpsc::Sender<String>,
    /// The requests.
    pub unanswered: Arc<Unanswered>,
}

/// Serves one client until the messages end or `stop` is cancelled.
pub async fn serve_lines(
    offer: Arc<dyn Offer>,
    mut messages: mpsc::Receiver<LetIn>,
    outgoing: Outgoing,
    stop: CancellationToken,
) {
    let asking = Asking { lines: outgoing.lines.clone(), waiting: Arc::default(), next: Arc::default() };
    let session =
        Session { protocol: Protocol::without_subscriptions(offer), outgoing, asking, running: Arc::default() };
    let tasks = TaskTracker::new();
    let ended = CancellationToken::new();
    let _end = ended.clone().drop_guard();
    while let Some(Some(let_in)) = stop.run_until_cancelled(messages.recv()).await {
        match let_in {
            LetIn::Judged { message, exchange, recording } => {
                let Some(running) = session.begin(*message, *exchange).await else { continue };
                tasks.spawn(ended.clone().run_until_cancelled_owned(async move {
                    running.await;
                    drop(recording);
                }));
            }
            LetIn::Answer { id, result } => session.asking.answered(&id, result),
        }
    }
}

/// One client.
struct Session {
    protocol: Protocol,
    outgoing: Outgoing,
    asking: Asking,
    /// Running calls, by the id of their request as JSON.
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

impl Session {
    /// Answers a message, or returns the call that will answer it.
    async fn begin(&self, message: Message, mut exchange: Exchange) -> Option<BoxFuture<'static, ()>> {
        if let Method::Cancelled { request: Some(request) } = &message.method {
            self.cancel(request);
        }
        let id = message.answer_id().clone();
        let asking = self.asking.clone();
        exchange.asks = Some(Arc::new(move |requests| asking.clone().ask(requests).boxed()));
        match self.protocol.answer(message, &exchange) {
            Answer::Now(text) => self.outgoing.answer(&id, text).await,
            Answer::Failed(error) => self.outgoing.fail(&id, &error).await,
            Answer::Subscribed(_) => {
                let error = ErrorValue::new(code::METHOD_NOT_FOUND, "this transport does not support subscriptions");
                self.outgoing.fail(&id, &error).await;
            }
            Answer::Later(call) => return Some(self.run(id, call).boxed()),
            Answer::Nothing => {}
        }
        None
    }

    /// Runs a call to its end, or until the client cancels it. A cancelled call needs no answer.
    fn run(&self, id: Value, mut call: Running) -> impl Future<Output = ()> + Send + 'static {
        let cancelled = CancellationToken::new();
        let (running, outgoing) = (Arc::clone(&self.running), self.outgoing.clone());
        lock(&running).insert(id.to_string(), cancelled.clone());
        async move {
            let telling = async {
                loop {
                    match call.next().await {
                        Step::Notice(text) => outgoing.send(text).await,
                        Step::Finished(finished) => return finished.message,
                    }
                }
            };
            let is_told = cancelled.run_until_cancelled(telling).await;
            // From here on another request may have the same id.
            lock(&running).remove(&id.to_string());
            match is_told {
                Some(message) => outgoing.answer(&id, message).await,
                None => outgoing.unanswered.end(&id),
            }
        }
    }

    fn cancel(&self, request: &Value) {
        if let Some(call) = lock(&self.running).get(&request.to_string()) {
            call.cancel();
        }
    }
}

impl Outgoing {
    /// Sends the answer to a request. A failure means that the client has gone.
    async fn answer(&self, id: &Value, text: Bytes) {
        self.send(text).await;
        self.unanswered.end(id);
    }

    /// Sends an error as the answer to a request.
    pub async fn fail(&self, id: &Value, error: &ErrorValue) {
        self.answer(id, Bytes::from(error.answer(id).to_string())).await;
    }

    async fn send(&self, text: Bytes) {
        if let Ok(text) = String::from_utf8(text.into()) {
            _ = self.lines.send(text).await;
        }
    }
}

/// Requests to the client, which answers them while a call runs.
#[derive(Clone)]
struct Asking {
    lines: mpsc::Sender<String>,
    /// Senders of pending answers, by the id of our request.
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>,
    next: Arc<AtomicU64>,
}

impl Asking {
    /// Returns the client's answers to these requests, in their order. A request without an answer in time has `None`.
    async fn ask(self, requests: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
        let mut answers = BTreeMap::new();
        for (name, request) in requests {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let (place, answer) = oneshot::channel();
            lock(&self.waiting).insert(id, place);
            let _forgotten = Forgotten { waiting: &self.waiting, id };
            let mut message = json!({ "jsonrpc": "2.0", "id": id });
            if let (Value::Object(message), Value::Object(request)) = (&mut message, request) {
                message.extend(request);
            }
            _ = self.lines.send(message.to_string()).await;
            let answer = tokio::time::timeout(INPUT_PATIENCE, answer).await;
            answers.insert(name, answer.ok().and_then(Result::ok).unwrap_or_default());
        }
        answers
    }

    fn answered(&self, id: &Value, result: Value) {
        let place = id.as_u64().and_then(|id| lock(&self.waiting).remove(&id));
        if let Some(place) = place {
            _ = place.send(result);
        }
    }
}

/// Forgets a request to the client when no call waits for its answer.
struct Forgotten<'a> {
    waiting: &'a Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    id: u64,
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
