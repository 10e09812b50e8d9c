//! Messages over a Unix socket, a line each. At its other end a shim runs a process of the backend for this connection.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;

use super::error::BackendError;
use super::line_codec::{Line, LineCodec};
use super::message::{self, Incoming, MAXIMUM_MIB, Notification};
use super::{Change, OnChange, OnNotice};
use crate::raw_json::RawObject;

/// Lines that wait to be written.
const WAITING: usize = 64;
/// Time that a backend has to take a line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, and the process at its other end. Both end when this is dropped.
pub(super) struct Lines {
    lines: mpsc::Sender<String>,
    waiting: Arc<Waiting>,
    ended: CancellationToken,
}

/// Requests that wait for their answers. None any more once the connection has ended.
#[derive(Default)]
struct Waiting(Mutex<Option<HashMap<u64, Request>>>);

/// A request that waits.
struct Request {
    answer: oneshot::Sender<Result<RawObject, BackendError>>,
    notices: Option<OnNotice>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, Request>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: u64, outcome: Result<RawObject, BackendError>) {
        match self.lock().as_mut().and_then(|waiting| waiting.remove(&id)) {
            Some(request) => drop(request.answer.send(outcome)),
            None => tracing::debug!(id, "the backend answers what nobody waits for"),
        }
    }

    fn notices(&self, id: u64) -> Option<OnNotice> {
        self.lock().as_ref()?.get(&id)?.notices.clone()
    }
}

impl Lines {
    /// Connects to the socket. Changes that the backend tells of go to `changes`.
    pub(super) async fn connect(socket: &Path, changes: OnChange) -> Result<Self, BackendError> {
        let away = |error: std::io::Error| BackendError::Away(error.to_string());
        let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(socket));
        let stream = stream.await.map_err(|_| BackendError::Silent(CONNECT_TIMEOUT.as_secs()))?.map_err(away)?;
        let (reads, writes) = stream.into_split();
        let (lines, queue) = mpsc::channel(WAITING);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let ended = CancellationToken::new();
        tokio::spawn(ended.clone().run_until_cancelled_owned(write(writes, queue)));
        let reader = Reader { waiting: Arc::clone(&waiting), lines: lines.downgrade(), changes };
        let (reading, end) = (ended.clone(), ended.clone());
        tokio::spawn(async move {
            let waiting = Arc::clone(&reader.waiting);
            let reason = reading.run_until_cancelled(reader.read(reads)).await.unwrap_or(BackendError::Ended);
            end.cancel();
            let left = waiting.lock().take();
            for request in left.into_iter().flat_map(HashMap::into_values) {
                drop(request.answer.send(Err(reason.clone())));
            }
        });
        Ok(Self { lines, waiting, ended })
    }

    /// True until the connection has ended.
    pub(super) fn is_alive(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Sends a request and waits for its answer. The request is given up when this future is dropped.
    pub(super) async fn ask(
        &self,
        id: u64,
        request: String,
        notices: Option<OnNotice>,
    ) -> Result<RawObject, BackendError> {
        let (answer, answered) = oneshot::channel();
        match self.waiting.lock().as_mut() {
            Some(waiting) => drop(waiting.insert(id, Request { answer, notices })),
            None => return Err(BackendError::Ended),
        }
        let _given_up = GivenUp { id, lines: self };
        self.send(request).await?;
        answered.await.unwrap_or(Err(BackendError::Ended))
    }

    /// Sends a message that has no answer.
    pub(super) async fn send(&self, message: String) -> Result<(), BackendError> {
        match timeout(WRITE_TIMEOUT, self.lines.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(BackendError::Ended),
            Err(_) => Err(BackendError::Silent(WRITE_TIMEOUT.as_secs())),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// Tells the backend that a request is given up, if it has not answered.
struct GivenUp<'a> {
    id: u64,
    lines: &'a Lines,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let is_open = self.lines.waiting.lock().as_mut().is_some_and(|waiting| waiting.remove(&self.id).is_some());
        if is_open {
            _ = self.lines.lines.try_send(message::cancelled(self.id));
        }
    }
}

async fn write(mut writes: OwnedWriteHalf, mut queue: mpsc::Receiver<String>) {
    while let Some(mut line) = queue.recv().await {
        line.push('\n');
        if !matches!(timeout(WRITE_TIMEOUT, writes.write_all(line.as_bytes())).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// The reader of a connection.
struct Reader {
    waiting: Arc<Waiting>,
    lines: mpsc::WeakSender<String>,
    changes: OnChange,
}

impl Reader {
    /// Reads to the end of the connection, and returns its reason.
    async fn read(self, reads: OwnedReadHalf) -> BackendError {
        let mut lines = FramedRead::new(reads, LineCodec::default());
        let too_large = BackendError::TooLarge(MAXIMUM_MIB);
        loop {
            match lines.next().await {
                Some(Ok(Line::Whole(line))) => self.take(line.trim_ascii()),
                Some(Ok(Line::TooLong(beginning))) => match Incoming::id_of_beginning(&beginning) {
                    Some(id) => self.waiting.answer(id, Err(too_large.clone())),
                    // Any request may be the one that it answers.
                    None => return too_large,
                },
                Some(Err(_)) | None => return BackendError::Ended,
            }
        }
    }

    fn take(&self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        match Incoming::parse(line) {
            Ok(Incoming::Answer { id: Some(id), outcome }) => {
                self.waiting.answer(id, outcome.map_err(BackendError::Answered));
            }
            Ok(Incoming::Answer { id: None, .. }) => tracing::debug!("the backend answers no request"),
            Ok(Incoming::Request { id, method }) => {
                if let Some(lines) = self.lines.upgrade() {
                    _ = lines.try_send(message::refusal(&id, &method));
                }
            }
            Ok(Incoming::Notification(notification)) => self.hear(notification),
            Err(error) => match Incoming::id_of_malformed(line) {
                Some(id) => self.waiting.answer(id, Err(error)),
                None => tracing::debug!("the backend writes a line that is no message"),
            },
        }
    }

    fn hear(&self, notification: Notification) {
        match notification {
            Notification::Progress { token, notice } => {
                if let Some(notices) = self.waiting.notices(token) {
                    notices(notice);
                }
            }
            Notification::ListChanged => (self.changes)(Change::Lists),
            Notification::Updated(uri) => (self.changes)(Change::Resource(uri)),
            // Nobody knows which request it is about.
            Notification::Log(_) | Notification::Other => {}
        }
    }
}
