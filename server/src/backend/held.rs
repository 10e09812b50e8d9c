//! Memory that large answers take until their clients have read them: bounded for all callers together and for each, so that
//! nobody's slow reading takes the memory of the pod.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::BackendError;

/// Memory of all answers together, in KiB.
const MOST: usize = 48 * 1024;
/// Memory of one caller's.
const MOST_OF_CALLER: usize = 16 * 1024;
/// The largest answer that is not counted, in KiB.
const SMALL: usize = 16;

/// A share of the memory.
#[derive(Clone)]
pub(super) struct Share(Arc<Semaphore>);

/// The memory of one answer, until this is dropped.
#[derive(Debug, Default)]
pub struct Held(#[expect(dead_code, reason = "what counts is when it is dropped")] Vec<OwnedSemaphorePermit>);

impl Share {
    /// The share of all callers.
    pub(super) fn of_all() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }

    /// The share of one caller.
    pub(super) fn of_caller() -> Self {
        Self(Arc::new(Semaphore::new(MOST_OF_CALLER)))
    }

    fn take(&self, kib: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_many_owned(kib).ok()
    }
}

/// Takes the memory of an answer of so many bytes.
///
/// # Errors
/// If earlier answers take it.
pub(super) fn hold(bytes: usize, caller: &Share, all: &Share) -> Result<Held, BackendError> {
    let kib = bytes / 1024;
    if kib <= SMALL {
        return Ok(Held::default());
    }
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    let own = caller.take(kib).ok_or(BackendError::Crowded("your"))?;
    let of_all = all.take(kib).ok_or(BackendError::Crowded("other"))?;
    Ok(Held(vec![own, of_all]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_a_share_of_the_memory_until_its_answers_are_read() {
        let (all, alice, bob, carol) = (Share::of_all(), Share::of_caller(), Share::of_caller(), Share::of_caller());
        let large = MOST_OF_CALLER * 1024;
        let first = hold(large, &alice, &all).unwrap();
        assert!(matches!(hold(large, &alice, &all), Err(BackendError::Crowded("your"))));
        hold(1024, &alice, &all).unwrap();
        let others = [hold(large, &bob, &all).unwrap(), hold(large, &carol, &all).unwrap()];
        assert!(matches!(hold(large, &Share::of_caller(), &all), Err(BackendError::Crowded("other"))));
        drop((first, others));
        hold(large, &alice, &all).unwrap();
    }
}
