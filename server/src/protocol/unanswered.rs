//! Requests of one client that are not answered yet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;

/// Requests that are answered at a time.
const MAXIMUM_UNANSWERED: usize = 256;

/// A reason for which a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Its answer could not be told from another one's.
    #[error("a request of this id is not answered yet; give each request an id of its own")]
    SameId,
    /// There are too many.
    #[error("{MAXIMUM_UNANSWERED} requests are not answered yet; send this one again when some are")]
    TooMany,
}

/// Requests that are not answered yet, by id as JSON.
#[derive(Default)]
pub struct Unanswered {
    ids: Mutex<HashMap<String, Waiting>>,
    changed: Notify,
}

/// The reason for which an answer takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It depends on nobody else.
    ForNobody,
    /// It depends on others, and on the person.
    ForOthers,
}

impl Unanswered {
    /// Notes a request.
    ///
    /// # Errors
    /// If one of this id is not answered yet, or too many are not.
    pub fn begin(&self, id: &Value, waiting: Waiting) -> Result<(), NotTaken> {
        let mut ids = self.lock();
        let is_full = ids.len() >= MAXIMUM_UNANSWERED;
        match ids.entry(id.to_string()) {
            Entry::Occupied(_) => Err(NotTaken::SameId),
            Entry::Vacant(_) if is_full => Err(NotTaken::TooMany),
            Entry::Vacant(entry) => {
                entry.insert(waiting);
                Ok(())
            }
        }
    }

    /// Notes that a request is answered, or will not be.
    pub fn end(&self, id: &Value) {
        self.lock().remove(&id.to_string());
        self.changed.notify_waiters();
    }

    /// Waits until everything is answered that depends on nobody else.
    pub async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.lock().values().any(|waiting| *waiting == Waiting::ForNobody) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
