//! Writes lines to standard error from a separate thread, so that a slow reader blocks nothing.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// Name of the program, which starts its own lines. Those of backends start with `[pid `.
pub const SHIM: &str = "mcp-entra-shim";

/// Maximum number of bytes that wait to be written. Further lines are counted, and left out.
const MOST_WAITING: usize = 256 * 1024;

/// Time limit for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Queue of lines. It never blocks.
#[derive(Clone)]
pub struct Log {
    lines: Sender<String>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Number of waiting bytes.
    waiting: AtomicUsize,
    /// Number of lines left out since the last report.
    dropped: AtomicUsize,
}

/// Thread that writes.
pub struct Writer {
    ended: Receiver<()>,
}

impl Log {
    /// Starts the thread that writes to standard error.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn to_stderr() -> io::Result<(Self, Writer)> {
        Self::to(io::stderr())
    }

    fn to(mut place: impl Write + Send + 'static) -> io::Result<(Self, Writer)> {
        let (lines, received) = mpsc::channel();
        let (running, ended) = mpsc::channel::<()>();
        let log = Self { lines, counts: Arc::default() };
        let counts = Arc::clone(&log.counts);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            // Dropped when the thread ends.
            let _running = running;
            for line in received {
                // A failure cannot be reported anywhere.
                let _ = place.write_all(line.as_bytes());
                counts.waiting.fetch_sub(line.len(), Ordering::Relaxed);
                let dropped = counts.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    let note = format!("{SHIM}: {dropped} log lines were dropped here: their reader is too slow\n");
                    let _ = place.write_all(note.as_bytes());
                }
            }
        })?;
        Ok((log, Writer { ended }))
    }

    /// Logs a line of the shim's own.
    pub fn say(&self, line: impl Display) {
        self.line(format!("{SHIM}: {line}"));
    }

    /// Logs a line, without its end.
    pub(crate) fn line(&self, mut line: String) {
        line.push('\n');
        let length = line.len();
        if self.counts.waiting.fetch_add(length, Ordering::Relaxed) + length > MOST_WAITING {
            self.counts.waiting.fetch_sub(length, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // The thread ends after the last sender is gone.
        let _ = self.lines.send(line);
    }
}

impl Writer {
    /// Waits until the last line is written, for at most half a second. Every [`Log`] must be dropped before.
    pub fn finish(self) {
        let ended: Result<(), RecvTimeoutError> = self.ended.recv_timeout(LAST_LINES);
        debug_assert!(ended.is_err(), "the thread sends nothing");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// A writer that blocks while it is locked.
    #[derive(Clone, Default)]
    struct Place(Arc<Mutex<Vec<u8>>>);

    impl Place {
        fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Write for Place {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn unread_lines_are_dropped_and_counted_and_later_ones_are_written() {
        let place = Place::default();
        let (log, writer) = Log::to(place.clone()).unwrap();
        let stuck = place.lock();
        let line = "x".repeat(1023);
        for _ in 0..MOST_WAITING / 1024 + 3 {
            log.line(line.clone());
        }
        drop(stuck);
        drop(log);
        writer.finish();
        let written = String::from_utf8(place.lock().clone()).unwrap();
        let lines = written.lines().filter(|written| **written == line).count();
        assert_eq!(lines, MOST_WAITING / 1024);
        assert!(written.contains("mcp-entra-shim: 3 log lines were dropped here"), "no note in the log");
    }

    #[test]
    fn a_blocked_log_does_not_delay_the_end() {
        let place = Place::default();
        let (log, writer) = Log::to(place.clone()).unwrap();
        let stuck = place.lock();
        log.say("never written");
        drop(log);
        writer.finish();
        drop(stuck);
    }
}
