//! The lock among the processes of one person.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::blocking;
use super::error::StoreError;

/// Pause between two attempts: no operating system tells an async program that a file is free.
const PAUSE: Duration = Duration::from_millis(50);

/// The work that one process does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockPurpose {
    /// Reading tokens, refreshing them and writing them.
    Tokens,
    /// The sign-in of the person.
    SignIn,
}

/// A lock that is held. It is free once this is dropped, or the process ends.
#[must_use = "the lock is free once this is dropped"]
#[derive(Debug)]
pub struct Lock {
    /// Absent where nothing is shared.
    _file: Option<File>,
}

impl Lock {
    /// The lock of a store that no other process shares.
    pub(super) fn unshared() -> Self {
        Self { _file: None }
    }

    /// Waits for the lock of an open file. `None`: somebody else holds it for longer than `patience`.
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
