//! The thread that writes the audit lines. Standard output may block, and no async thread waits for it.
//!
//! The queue before it has a bounded number of places. A request takes its place before it is judged, so its line is
//! queued without a wait whenever and however the request ends. The place is free again once the line is written.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::chain::Chain;
use super::line::Line;
use super::tokenless::{Request, Tokenless};
use crate::telemetry::Metrics;

/// Places in the queue: more than a port has connections (1024), each of which asks one thing at a time.
const PLACES: u32 = 4096;

/// Bytes that are written at once, or a little more.
const BATCH: usize = 64 * 1024;

/// The place of a request in the queue.
pub(super) type Place = OwnedSemaphorePermit;

/// An entry of the queue.
enum Entry {
    /// A line, without its chain.
    Line(String, Place),
    /// A request without a token, which is only counted.
    Tokenless(Request, Place),
    /// The end of the log. It is answered once everything is written.
    End(oneshot::Sender<()>),
}

/// The queue of the writing thread.
pub(super) struct Writer {
    places: Arc<Semaphore>,
    entries: Sender<Entry>,
}

impl Writer {
    /// Starts the thread, which ends with the log. `server` is the namespace and name of the McpServer.
    pub(super) fn start(
        server: String,
        lines: Box<dyn Write + Send>,
        chain: Option<Chain>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (entries, queue) = channel();
        let thread = Thread { server, lines, chain, metrics, tokenless: Tokenless::default() };
        std::thread::Builder::new().name("audit".into()).spawn(move || thread.run(&queue))?;
        Ok(Self { places: Arc::new(Semaphore::new(PLACES as usize)), entries })
    }

    /// Waits for a place in the queue. Returns none if none becomes free within this time.
    pub(super) async fn place(&self, patience: Duration) -> Option<Place> {
        tokio::time::timeout(patience, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()
    }

    /// Says whether a request would have to wait for a place.
    pub(super) fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    pub(super) fn line(&self, line: &Line<'_>, place: Place) {
        match serde_json::to_string(line) {
            Ok(text) => self.queue(Entry::Line(text, place)),
            Err(error) => tracing::error!(%error, request_id = line.request_id, "audit line not written"),
        }
    }

    pub(super) fn tokenless(&self, request: Request, place: Place) {
        self.queue(Entry::Tokenless(request, place));
    }

    /// Waits until the requests that have a place have ended and everything is written, for at most this time. Says whether
    /// it was.
    pub(super) async fn end(&self, patience: Duration) -> bool {
        let ended = async {
            let _all = self.places.acquire_many(PLACES).await;
            let (written, is_written) = oneshot::channel();
            self.queue(Entry::End(written));
            is_written.await
        };
        matches!(tokio::time::timeout(patience, ended).await, Ok(Ok(())))
    }

    /// Never waits: each entry has its place.
    fn queue(&self, entry: Entry) {
        if self.entries.send(entry).is_err() {
            tracing::error!("audit line not written: the thread that writes has ended");
        }
    }
}

/// The state of the writing thread.
struct Thread {
    server: String,
    lines: Box<dyn Write + Send>,
    chain: Option<Chain>,
    metrics: Arc<Metrics>,
    tokenless: Tokenless,
}

/// Lines that are written at once, and what is free or answered after that.
#[derive(Default)]
struct Batch {
    text: String,
    lines: usize,
    places: Vec<Place>,
    ends: Vec<oneshot::Sender<()>>,
}

impl Thread {
    fn run(mut self, queue: &Receiver<Entry>) {
        loop {
            let mut batch = Batch::default();
            let next = match self.tokenless.wait(Instant::now()) {
                Some(wait) => queue.recv_timeout(wait),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let is_over = matches!(next, Err(RecvTimeoutError::Disconnected));
            let mut next = next.ok();
            while let Some(entry) = next {
                self.take(entry, &mut batch);
                next = if batch.text.len() < BATCH { queue.try_recv().ok() } else { None };
            }
            let is_ending = is_over || !batch.ends.is_empty();
            if let Some(summary) = self.tokenless.take(Instant::now(), is_ending) {
                self.add(&mut batch, serde_json::to_string(&summary.line(&self.server)));
            }
            self.write(batch);
            if is_over {
                return;
            }
        }
    }

    fn take(&mut self, entry: Entry, batch: &mut Batch) {
        match entry {
            Entry::Line(text, place) => {
                batch.places.push(place);
                self.add(batch, Ok(text));
            }
            Entry::Tokenless(request, _place) => self.tokenless.count(request, Instant::now()),
            Entry::End(written) => batch.ends.push(written),
        }
    }

    fn add(&mut self, batch: &mut Batch, text: serde_json::Result<String>) {
        match text {
            Ok(text) => {
                let text = self.chain.as_mut().map_or(text.clone(), |chain| chain.append(&text));
                let _ = writeln!(batch.text, "{text}");
                batch.lines += 1;
            }
            Err(error) => tracing::error!(%error, "audit line not written"),
        }
    }

    fn write(&mut self, batch: Batch) {
        let Batch { text, lines, places, ends } = batch;
        if lines > 0 {
            let written = self.lines.write_all(text.as_bytes()).and_then(|()| self.lines.flush());
            if let Err(error) = written {
                tracing::error!(%error, lines, "audit lines not written");
            }
        }
        if let Some(chain) = &self.chain {
            self.metrics.audit_chain(chain.run(), chain.length());
        }
        drop(places);
        for end in ends {
            let _ = end.send(());
        }
    }
}
