//! The queue of the writer thread. The thread takes all entries at once, so that a busy server rarely wakes it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue with many writers and one reader. The places that entries hold bound its length.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

struct State<T> {
    entries: Vec<T>,
    /// True while the reader waits for an entry.
    is_awaited: bool,
    is_closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = State { entries: Vec::new(), is_awaited: false, is_closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Adds an entry. Returns it if the queue is closed.
    pub(super) fn push(&self, entry: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(entry);
        }
        state.entries.push(entry);
        if state.is_awaited {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Closes the queue: no more entries follow.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_one();
    }

    /// Returns a guard that closes the queue when it is dropped.
    pub(super) fn closed_at_end(&self) -> impl Drop {
        Closed(self)
    }

    /// Waits for an entry for at most this time, and takes all entries. The flag is false if the queue is closed.
    pub(super) fn take(&self, wait: Duration) -> (Vec<T>, bool) {
        let mut state = self.lock();
        if state.entries.is_empty() && !state.is_closed {
            state.is_awaited = true;
            let waited =
                self.filled.wait_timeout_while(state, wait, |state| state.entries.is_empty() && !state.is_closed);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.is_awaited = false;
        }
        (std::mem::take(&mut state.entries), !state.is_closed)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Closed<'a, T>(&'a Queue<T>);

impl<T> Drop for Closed<'_, T> {
    fn drop(&mut self) {
        self.0.close();
    }
}
