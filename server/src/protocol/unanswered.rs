//! Unanswered requests of one client.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;

/// Maximum number of unanswered requests.
const MAXIMUM_UNANSWERED: usize = 256;

/// The reason for which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Its answer could not be distinguished from another one's.
    #[error("a request with this id is not answered yet; give each request its own id")]
    SameId,
    /// There are too many.
    #[error("{MAXIMUM_UNANSWERED} requests are not answered yet; send this one again later")]
    TooMany,
}

/// Unanswered requests, by id as JSON.
#[derive(Default)]
pub struct Unanswered {
    ids: Mutex<HashMap<String, Waiting>>,
    changed: Notify,
}

/// The reason for which an answer takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The answer depends on nothing else.
    ForNobody,
    /// The answer depends on other servers, or on the user.
    ForOthers,
}

impl Unanswered {
    /// Records a request.
    ///
    /// # Errors
    /// If a request with this id is not answered yet, or too many are not.
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

    /// Records that a request is answered, or will not be.
    pub fn end(&self, id: &Value) {
        self.lock().remove(&id.to_string());
        self.changed.notify_waiters();
    }

    /// Waits until everything is answered that depends on nothing else.
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
