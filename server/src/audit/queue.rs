//! The queue before the thread that writes. The thread takes all that waits at once, so that a busy server wakes it seldom.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue of many writers and one reader. Its length is bounded by the places that entries hold.
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

    /// Says that no entry comes any more.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_one();
    }

    /// Closes the queue when this value is dropped, however the reader ends.
    pub(super) fn closed_at_end(&self) -> impl Drop {
        Closed(self)
    }

    /// Takes all entries, and waits for one for at most this time. Returns whether others may come.
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
