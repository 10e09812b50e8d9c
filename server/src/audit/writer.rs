//! The thread that writes audit lines. Standard output may block or fail, and no async thread may wait for it.
//!
//! The queue has a bounded number of places. A request takes a place before it is judged, so its line can enter the
//! queue without waiting, however the request ends. The place is free again once the line is written. A refusal that
//! is only counted needs no line and frees its place at once.
//!
//! A failed write is retried from the first missing byte, so that the chain stays unbroken. Meanwhile the queue
//! fills.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::anonymous::{Anonymous, PERIOD, Request, Summary};
use super::chain::Chain;
use super::line::Line;
use super::queue::Queue;
use crate::telemetry::Metrics;

/// Places in the queue. A port has at most 1024 connections, each with one request at a time.
const PLACES: usize = 4096;

/// Time after a write in which more lines gather.
const GATHERING: Duration = Duration::from_millis(2);

/// Pause after a failed write.
const PAUSE: Duration = Duration::from_secs(2);

/// The place of a request in the queue.
pub(super) struct Place {
    queued: OwnedSemaphorePermit,
    /// Marks the request as running.
    _running: TaskTrackerToken,
}

/// The reason why the end of the log may lack lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// Requests have not ended, so their lines do not exist.
    Requests,
    /// Waiting lines are not written: standard output is blocked.
    Lines,
}

/// An entry of the queue.
enum Entry {
    /// A line, without its chain.
    Line(String, OwnedSemaphorePermit),
    /// The end of the log. Answered once everything is written.
    End(oneshot::Sender<()>),
}

/// The queue of the writer thread.
pub(super) struct Writer {
    queue: Arc<Queue<Entry>>,
    running: TaskTracker,
    shared: Arc<Shared>,
}

/// State shared by requests and the thread.
struct Shared {
    /// Closed once nobody waits for lines.
    places: Arc<Semaphore>,
    anonymous: Mutex<Anonymous>,
    /// The error of the last write, if it failed.
    failure: Mutex<Option<String>>,
}

impl Writer {
    /// Starts the thread, which ends with the log. `server` is namespace and name of the McpServer.
    pub(super) fn start(
        server: String,
        lines: Box<dyn Write + Send>,
        chain: Option<Chain>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new());
        let shared = Arc::new(Shared {
            places: Arc::new(Semaphore::new(PLACES)),
            anonymous: Mutex::default(),
            failure: Mutex::default(),
        });
        let thread = Thread { server, lines, chain, metrics, shared: Arc::clone(&shared) };
        let taken = Arc::clone(&queue);
        std::thread::Builder::new().name("audit".into()).spawn(move || {
            let _closed = taken.closed_at_end();
            thread.run(&taken);
        })?;
        Ok(Self { queue, running: TaskTracker::new(), shared })
    }

    /// Waits for a place in the queue. Returns none if no place becomes free within this time.
    pub(super) async fn place(&self, patience: Duration) -> Option<Place> {
        let queued = Arc::clone(&self.shared.places).acquire_owned();
        let queued = tokio::time::timeout(patience, queued).await.ok()?.ok()?;
        Some(Place { queued, _running: self.running.token() })
    }

    /// Returns the reason why lines cannot be written, if any.
    pub(super) fn trouble(&self) -> Option<String> {
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.as_ref() {
            Some(error) => Some(format!("the last write to standard output failed: {error}")),
            None if self.shared.places.available_permits() == 0 => {
                Some("the queue of unwritten lines is full: the reader of standard output is slow".to_owned())
            }
            None => None,
        }
    }

    pub(super) fn line(&self, line: &Line<'_>, place: Place) {
        match serde_json::to_string(line) {
            Ok(text) => self.push(Entry::Line(text, place.queued)),
            Err(error) => tracing::error!(%error, request_id = line.request_id, "cannot write an audit line"),
        }
    }

    /// Returns true if a refusal without a principal gets its own line. Otherwise counts it.
    pub(super) fn has_own_line(&self, reason: &'static str, request: impl FnOnce() -> Request) -> bool {
        let (mut anonymous, now) = (self.shared.anonymous(), Instant::now());
        let own = anonymous.has_own_line(reason, now);
        if !own {
            anonymous.count(reason, request(), now);
        }
        own
    }

    /// Waits until running requests end and all lines are written. The total wait is at most `patience`, of which
    /// requests get at most half. After that, failed writes are not retried.
    pub(super) async fn end(&self, patience: Duration) -> Result<(), Unfinished> {
        let deadline = tokio::time::Instant::now() + patience;
        self.running.close();
        let requests = tokio::time::timeout(patience / 2, self.running.wait()).await;
        let (written, is_written) = oneshot::channel();
        self.push(Entry::End(written));
        let lines = tokio::time::timeout_at(deadline, is_written).await;
        self.shared.places.close();
        match (requests, lines) {
            (Ok(()), Ok(Ok(()))) => Ok(()),
            (Err(_), Ok(Ok(()))) => Err(Unfinished::Requests),
            (_, Ok(Err(_)) | Err(_)) => Err(Unfinished::Lines),
        }
    }
}

impl Writer {
    /// Never waits: each entry already has its place.
    fn push(&self, entry: Entry) {
        if self.queue.push(entry).is_err() {
            tracing::error!("audit line lost: the writer thread has ended");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.places.close();
        self.queue.close();
    }
}

impl Shared {
    fn anonymous(&self) -> std::sync::MutexGuard<'_, Anonymous> {
        self.anonymous.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State of the writer thread.
struct Thread {
    server: String,
    lines: Box<dyn Write + Send>,
    chain: Option<Chain>,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
}

/// Lines of one write, with the places to free and the ends to answer after it.
#[derive(Default)]
struct Batch {
    text: String,
    places: Vec<OwnedSemaphorePermit>,
    ends: Vec<oneshot::Sender<()>>,
}

impl Thread {
    fn run(mut self, queue: &Queue<Entry>) {
        loop {
            let mut batch = Batch::default();
            // Counted refusals do not wake the thread. So it wakes when their period ends, or after one period.
            let wait = self.shared.anonymous().wait(Instant::now()).unwrap_or(PERIOD);
            let (entries, goes_on) = queue.take(wait);
            for entry in entries {
                match entry {
                    Entry::Line(text, place) => {
                        batch.places.push(place);
                        self.add(&mut batch, text);
                    }
                    Entry::End(written) => batch.ends.push(written),
                }
            }
            let is_ending = !goes_on || !batch.ends.is_empty();
            let summaries = self.shared.anonymous().take(Instant::now(), is_ending);
            for summary in &summaries {
                self.add_summary(&mut batch, summary);
            }
            if !self.write(&batch.text) {
                return;
            }
            drop(batch.places);
            for end in batch.ends {
                let _ = end.send(());
            }
            if !goes_on {
                return;
            }
            std::thread::sleep(GATHERING);
        }
    }

    fn add_summary(&mut self, batch: &mut Batch, summary: &Summary) {
        match serde_json::to_string(&summary.line(&self.server)) {
            Ok(text) => self.add(batch, text),
            Err(error) => tracing::error!(%error, "cannot write an audit line"),
        }
    }

    fn add(&mut self, batch: &mut Batch, text: String) {
        let text = match &mut self.chain {
            Some(chain) => chain.append(&text),
            None => text,
        };
        let _ = writeln!(batch.text, "{text}");
    }

    /// Writes a text and retries after failures. Returns false if nobody waits for it any more.
    fn write(&mut self, text: &str) -> bool {
        let mut rest = text.as_bytes();
        while let Err(error) = write_some(&mut *self.lines, &mut rest) {
            let bytes = rest.len();
            tracing::error!(%error, bytes, "cannot write audit lines, will retry");
            *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            std::thread::sleep(PAUSE);
            if self.shared.places.is_closed() {
                return false;
            }
        }
        *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(chain) = &self.chain {
            self.metrics.audit_chain(chain.run(), chain.length());
        }
        true
    }
}

/// Writes as much as the output accepts. Afterwards `rest` begins with the first unwritten byte, even after an error.
fn write_some(lines: &mut dyn Write, rest: &mut &[u8]) -> std::io::Result<()> {
    while !rest.is_empty() {
        match lines.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(taken) => *rest = rest.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    lines.flush()
}
