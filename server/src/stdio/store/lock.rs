//! The lock between the processes of one person.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::blocking;
use super::error::StoreError;

/// Pause between two attempts. No operating system notifies an async program of a free lock.
const PAUSE: Duration = Duration::from_millis(50);

/// The exclusive work of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockPurpose {
    /// Reading tokens, refreshing them and writing them.
    Tokens,
    /// A sign-in of the person.
    SignIn,
}

/// A held lock. Dropping it, or the end of the process, releases it.
#[must_use = "the lock is free once this is dropped"]
#[derive(Debug)]
pub struct Lock {
    /// Absent if nothing is shared.
    _file: Option<File>,
}

impl Lock {
    /// Returns the lock of a store that no other process shares.
    pub(super) fn unshared() -> Self {
        Self { _file: None }
    }

    /// Waits for the lock on an open file. Returns `None` if it is not free within `patience`.
    pub(super) async fn wait(file: File, path: PathBuf, patience: Duration) -> Result<Option<Self>, StoreError> {
        let deadline = Instant::now() + patience;
        let mut file = file;
        loop {
            let (attempted, result) = blocking(move || {
                let result = file.try_lock();
                Ok((file, result))
            })
            .await?;
            match result {
                Ok(()) => return Ok(Some(Self { _file: Some(attempted) })),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(StoreError::io(&path, error)),
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Ok(None);
            }
            sleep(rest.min(PAUSE)).await;
            file = attempted;
        }
    }
}
