//! Messages over a Unix socket, one in each line. At the other end, a shim runs a process of the backend for each
//! connection.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::bytes::BytesMut;
use tokio_util::sync::CancellationToken;

use super::error::BackendError;
use super::held::{Budget, Held, Reading, SMALL, Share};
use super::line_codec::{Line, LineCodec};
use super::message::{self, Incoming, MAXIMUM_MIB, Notification};
use super::{Change, Notice, OnChange, OnNotice};
use crate::raw_json::RawObject;

/// Maximum number of lines that wait to be written.
const WAITING: usize = 64;
/// Time limit for a backend to read a line.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time between two parts of a large line.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Number of bytes that are read at once.
const PART: usize = 16 * 1024;

/// A connection and the process at its other end. Dropping this ends both.
pub(super) struct Lines {
    lines: mpsc::Sender<String>,
    waiting: Arc<Waiting>,
    ended: CancellationToken,
}

/// Requests that wait for their answers, or `None` after the connection has ended.
#[derive(Default)]
struct Waiting(Mutex<Option<HashMap<u64, Request>>>);

/// A request that waits for its answer.
struct Request {
    answer: oneshot::Sender<Answer>,
    notices: Option<OnNotice>,
}

type Answer = Result<(RawObject, Held), BackendError>;

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, Request>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: u64, outcome: Answer) {
        match self.lock().as_mut().and_then(|waiting| waiting.remove(&id)) {
            Some(request) => drop(request.answer.send(outcome)),
            None => tracing::debug!(id, "no request waits for an answer of the backend"),
        }
    }

    fn notices(&self, id: u64) -> Option<OnNotice> {
        self.lock().as_ref()?.get(&id)?.notices.clone()
    }
}

impl Lines {
    /// Connects to the socket. Large answers use this memory, and `changes` receives the changes that the backend
    /// reports.
    pub(super) async fn connect(socket: &Path, memory: Share, changes: OnChange) -> Result<Self, BackendError> {
        let away = |error: std::io::Error| BackendError::Away(error.to_string());
        let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(socket));
        let stream = stream.await.map_err(|_| BackendError::Silent(CONNECT_TIMEOUT.as_secs()))?.map_err(away)?;
        Ok(Self::over(stream, IDLE_TIMEOUT, memory, changes))
    }

    /// Returns the connection over this stream. `idle` is the maximum time between two parts of a large line.
    fn over(stream: UnixStream, idle: Duration, memory: Share, changes: OnChange) -> Self {
        let (reads, writes) = stream.into_split();
        let (lines, queue) = mpsc::channel(WAITING);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let ended = CancellationToken::new();
        tokio::spawn(ended.clone().run_until_cancelled_owned(write(writes, queue)));
        let reader = Reader { waiting: Arc::clone(&waiting), lines: lines.downgrade(), changes, idle };
        let (reading, end) = (ended.clone(), ended.clone());
        tokio::spawn(async move {
            let waiting = Arc::clone(&reader.waiting);
            let reason = reading.run_until_cancelled(reader.read(reads, memory)).await.unwrap_or(BackendError::Ended);
            end.cancel();
            let left = waiting.lock().take();
            for request in left.into_iter().flat_map(HashMap::into_values) {
                drop(request.answer.send(Err(reason.clone())));
            }
        });
        Self { lines, waiting, ended }
    }

    /// Returns true until the connection has ended.
    pub(super) fn is_alive(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Returns the token that is cancelled when the connection has ended.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Sends a request and returns its answer. Dropping this future cancels the request.
    pub(super) async fn ask(&self, id: u64, request: String, notices: Option<OnNotice>) -> Answer {
        let (answer, answered) = oneshot::channel();
        match self.waiting.lock().as_mut() {
            Some(waiting) => drop(waiting.insert(id, Request { answer, notices })),
            None => return Err(BackendError::Ended),
        }
        let _given_up = GivenUp { id, lines: self };
        self.send(request).await?;
        answered.await.unwrap_or(Err(BackendError::Ended))
    }

    /// Sends a message that needs no answer.
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

/// Cancels a request when this is dropped, if the backend has not answered.
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
    /// Maximum time between two parts of a large line.
    idle: Duration,
}

impl Reader {
    /// Reads to the end of the connection, and returns the reason of the end.
    async fn read(self, mut reads: OwnedReadHalf, memory: Share) -> BackendError {
        let (mut codec, mut buffer) = (LineCodec::default(), BytesMut::new());
        // The id of the answer identifies the caller, and may be at the end of the answer.
        let mut reading = Reading::new(Budget { caller: None, all: memory });
        loop {
            let was_large = reading.is_large();
            loop {
                match codec.decode(&mut buffer) {
                    Ok(Some(Line::Whole(line))) => {
                        let held = reading.end(line.len());
                        self.take(line.trim_ascii(), held);
                    }
                    Ok(Some(Line::TooLong(beginning))) => match Incoming::id_of_beginning(&beginning) {
                        Some(id) => self.waiting.answer(id, Err(BackendError::TooLarge(MAXIMUM_MIB))),
                        // The line may answer any of the requests.
                        None => return BackendError::TooLarge(MAXIMUM_MIB),
                    },
                    Ok(None) => break,
                    Err(_) => return BackendError::Ended,
                }
            }
            if was_large && buffer.len() <= SMALL {
                drop(reading.end(0));
                // This also frees the buffer of the large line.
                buffer = BytesMut::from(&*buffer);
            }
            // Meanwhile nothing is read from this process.
            while let Err(error) = reading.grow(buffer.len()).await {
                tracing::warn!(%error, "an answer of the backend waits for memory");
            }
            buffer.reserve(PART);
            let read = reads.read_buf(&mut buffer);
            let read = match reading.is_large() {
                true => timeout(self.idle, read).await,
                false => Ok(read.await),
            };
            match read {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return BackendError::Ended,
                Err(_) => return BackendError::Silent(self.idle.as_secs()),
            }
        }
    }

    fn take(&self, line: &[u8], held: Held) {
        if line.is_empty() {
            return;
        }
        match Incoming::parse(line) {
            Ok(Incoming::Answer { id: Some(id), outcome }) => {
                self.waiting.answer(id, outcome.map_err(BackendError::Answered).map(|result| (result, held)));
            }
            Ok(Incoming::Answer { id: None, .. }) => tracing::debug!("the backend sends an answer without an id"),
            Ok(Incoming::Request { id, method }) => {
                if let Some(lines) = self.lines.upgrade() {
                    _ = lines.try_send(message::refusal(&id, &method));
                }
            }
            Ok(Incoming::Notification(notification)) => self.hear(notification),
            Err(error) => match Incoming::id_of_malformed(line) {
                Some(id) => self.waiting.answer(id, Err(error)),
                None => tracing::debug!("the backend writes a line that is not a message"),
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
            Notification::Acknowledged { id, uris } => {
                if let Some(notices) = self.waiting.notices(id) {
                    notices(Notice::Acknowledged(uris));
                }
            }
            Notification::ListChanged => (self.changes)(Change::Lists),
            Notification::Updated(uri) => (self.changes)(Change::Resource(uri)),
            // A log message does not name its request.
            Notification::Log(_) | Notification::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maximum time between two parts of a large line.
    const IDLE: Duration = Duration::from_millis(100);
    const SOON: Duration = Duration::from_secs(20);

    /// Returns a connection, and its other end.
    fn connection() -> (Arc<Lines>, UnixStream) {
        let (own, other) = UnixStream::pair().unwrap();
        (Arc::new(Lines::over(own, IDLE, Share::of_all(), Arc::new(|_| ()))), other)
    }

    /// Sends a request with this id, and waits until it is at the other end.
    async fn asked(lines: &Arc<Lines>, other: &mut UnixStream, id: u64) -> tokio::task::JoinHandle<Answer> {
        let asking = Arc::clone(lines);
        let answer = tokio::spawn(async move { asking.ask(id, format!("request {id}"), None).await });
        let mut line = format!("request {id}\n").into_bytes();
        timeout(SOON, other.read_exact(&mut line)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn a_large_line_that_does_not_continue_fails_all_requests_and_ends_the_process() {
        assert_eq!(IDLE_TIMEOUT, Duration::from_secs(120));
        let (lines, mut other) = connection();
        let answers = [asked(&lines, &mut other, 2).await, asked(&lines, &mut other, 3).await];
        let beginning = format!(r#"{{"jsonrpc":"2.0","id":2,"result":{{"a":"{}"#, "x".repeat(SMALL));
        other.write_all(beginning.as_bytes()).await.unwrap();
        for answer in answers {
            let answer = timeout(SOON, answer).await.unwrap().unwrap();
            assert!(matches!(answer, Err(BackendError::Silent(_))), "{answer:?}");
        }
        assert!(!lines.is_alive());
        assert_eq!(timeout(SOON, other.read(&mut [0; 8])).await.unwrap().unwrap(), 0, "the process sees the end");
    }

    #[tokio::test]
    async fn a_process_may_be_silent_between_answers_and_within_a_small_one() {
        let (lines, mut other) = connection();
        let answer = asked(&lines, &mut other, 2).await;
        tokio::time::sleep(3 * IDLE).await;
        other.write_all(br#"{"jsonrpc":"2.0","id":2,"#).await.unwrap();
        tokio::time::sleep(3 * IDLE).await;
        other.write_all(b"\"result\":{}}\n").await.unwrap();
        assert!(timeout(SOON, answer).await.unwrap().unwrap().is_ok());
        assert!(lines.is_alive());
    }
}
