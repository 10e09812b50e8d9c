//! Memory of large answers, from the first bytes of the backend until the client has read the answer. It is limited
//! for each caller and for all callers together, so that no caller can use all memory of the pod.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::BackendError;
use super::message::MAXIMUM_BYTES;

/// Maximum memory of all answers together, in KiB.
const MOST: u32 = 48 * 1024;
/// Maximum memory of the answers to one caller, in KiB.
const MOST_OF_CALLER: u32 = 16 * 1024;
/// Maximum size of an answer that is not counted, in bytes.
pub(super) const SMALL: usize = 16 * 1024;
/// Maximum time that a large answer waits for memory.
const PATIENCE: Duration = Duration::from_secs(30);

/// A share of the memory.
#[derive(Clone)]
pub(super) struct Share(Arc<Semaphore>);

/// The memory that an answer may use.
#[derive(Clone)]
pub(super) struct Budget {
    /// The share of the caller. Absent if the caller is unknown until the answer is read.
    pub(super) caller: Option<Share>,
    /// The share of all callers.
    pub(super) all: Share,
}

/// The memory of an answer that is being read.
pub(super) struct Reading {
    budget: Budget,
    held: Held,
    patience: Duration,
}

/// The memory of one answer. Dropping this releases it.
#[derive(Debug, Default)]
pub struct Held {
    of_caller: Option<OwnedSemaphorePermit>,
    of_all: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Returns the share of all callers.
    pub(super) fn of_all() -> Self {
        Self(Arc::new(Semaphore::new(MOST as usize)))
    }

    /// Returns the share of one caller.
    pub(super) fn of_caller() -> Self {
        Self(Arc::new(Semaphore::new(MOST_OF_CALLER as usize)))
    }

    /// Waits until memory for the largest answer is free, and takes it.
    async fn reserve(&self, patience: Duration, whose: &'static str) -> Result<OwnedSemaphorePermit, BackendError> {
        let largest = Arc::clone(&self.0).acquire_many_owned(kib(MAXIMUM_BYTES));
        timeout(patience, largest).await.ok().and_then(Result::ok).ok_or(BackendError::Crowded(whose))
    }
}

impl Reading {
    /// Returns the memory of an answer before its first byte.
    pub(super) fn new(budget: Budget) -> Self {
        Self { budget, held: Held::default(), patience: PATIENCE }
    }

    /// Returns true if the answer is large.
    pub(super) fn is_large(&self) -> bool {
        self.held.of_all.is_some()
    }

    /// Waits for memory for this number of bytes. A large answer takes its maximum at once. If large answers took
    /// memory step by step, all of them could wait for each other.
    ///
    /// # Errors
    /// If earlier answers use the memory for too long.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), BackendError> {
        if bytes <= SMALL || self.is_large() {
            return Ok(());
        }
        if let Some(caller) = &self.budget.caller {
            self.held.of_caller = Some(caller.reserve(self.patience, "your").await?);
        }
        self.held.of_all = Some(self.budget.all.reserve(self.patience, "other").await?);
        Ok(())
    }

    /// Returns the memory of the complete answer, which has this number of bytes. The next answer begins without
    /// memory.
    pub(super) fn end(&mut self, bytes: usize) -> Held {
        let mut held = std::mem::take(&mut self.held);
        for permit in [&mut held.of_caller, &mut held.of_all].into_iter().flatten() {
            let left = permit.num_permits().saturating_sub(kib(bytes) as usize);
            drop(permit.split(left));
        }
        held
    }
}

impl Held {
    /// Counts the answer for its caller, if the caller was unknown before.
    ///
    /// # Errors
    /// If earlier answers use the memory of this caller.
    pub(super) fn count_for(&mut self, caller: &Share) -> Result<(), BackendError> {
        if let (None, Some(of_all)) = (&self.of_caller, &self.of_all) {
            let kib = u32::try_from(of_all.num_permits()).unwrap_or(u32::MAX);
            let of_caller = Arc::clone(&caller.0).try_acquire_many_owned(kib);
            self.of_caller = Some(of_caller.map_err(|_| BackendError::Crowded("your"))?);
        }
        Ok(())
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const LARGE: usize = SMALL + 1;

    fn budget(caller: &Share, all: &Share) -> Budget {
        Budget { caller: Some(caller.clone()), all: all.clone() }
    }

    /// Returns the memory of an answer to this caller after this number of bytes, or `None` while the answer waits.
    fn read(bytes: usize, caller: &Share, all: &Share) -> Option<Reading> {
        let mut reading = Reading::new(budget(caller, all));
        reading.grow(bytes).now_or_never()?.unwrap();
        Some(reading)
    }

    #[tokio::test]
    async fn a_large_answer_waits_while_the_callers_answers_take_its_share_and_no_other_caller_does() {
        let (all, alice, bob) = (Share::of_all(), Share::of_caller(), Share::of_caller());
        let mut first = Vec::from_iter((0..4).map(|_| read(LARGE, &alice, &all).unwrap()));
        assert!(read(LARGE, &alice, &all).is_none());
        assert!(read(SMALL, &alice, &all).is_some());
        assert!(read(LARGE, &bob, &all).is_some());
        let unread = first.pop().unwrap().end(LARGE);
        assert!(read(LARGE, &alice, &all).is_none(), "what the client has not read yet counts, too");
        drop(unread);
        assert!(read(LARGE, &alice, &all).is_some());
    }

    #[tokio::test]
    async fn all_callers_together_have_three_times_the_memory_of_one() {
        let all = Share::of_all();
        let mut callers = Vec::from_iter((0..12).map(|_| read(LARGE, &Share::of_caller(), &all).unwrap()));
        assert!(read(LARGE, &Share::of_caller(), &all).is_none());
        callers.pop();
        assert!(read(LARGE, &Share::of_caller(), &all).is_some());
    }

    #[tokio::test]
    async fn an_answer_that_gets_no_memory_is_given_up() {
        let (all, alice) = (Share::of_all(), Share::of_caller());
        let first = Vec::from_iter((0..4).map(|_| read(LARGE, &alice, &all).unwrap()));
        let mut next = Reading { patience: Duration::from_millis(50), ..Reading::new(budget(&alice, &all)) };
        assert!(matches!(next.grow(LARGE).await, Err(BackendError::Crowded("your"))));
        drop(first);
        next.grow(LARGE).await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_holds_what_it_has_and_is_counted_for_a_caller_who_is_known_later() {
        let (all, alice) = (Share::of_all(), Share::of_caller());
        let mut reading = Reading::new(Budget { caller: None, all: all.clone() });
        let mut answers = vec![];
        for _ in 0..4 {
            reading.grow(LARGE).await.unwrap();
            let mut held = reading.end(MAXIMUM_BYTES);
            held.count_for(&alice).unwrap();
            answers.push(held);
        }
        reading.grow(LARGE).await.unwrap();
        let mut held = reading.end(LARGE);
        assert_eq!(held.of_all.as_ref().map(OwnedSemaphorePermit::num_permits), Some(17));
        assert!(matches!(held.count_for(&alice), Err(BackendError::Crowded("your"))));
        held.count_for(&Share::of_caller()).unwrap();
    }
}
