//! The store of sessions and sign-ins, which all replicas share.
//!
//! What is kept is sealed before it comes here. Each value has an end of its life, at which it is gone.

mod memory;
mod valkey;

use std::time::Duration;

use async_trait::async_trait;

pub use memory::MemoryStore;
pub use valkey::{ValkeyError, ValkeyStore};

/// The reason why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or not as it should. A command may have been carried out nevertheless.
    #[error("the session store is not available: {0}")]
    Unavailable(String),
    /// It holds as much as it may. Values that live are never dropped for new ones.
    #[error("the session store is full: {0}")]
    Full(String),
}

/// A store of values that end. Each operation is atomic, and has an end of its own: within seconds it fails.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns the value of a key.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Puts a value for this long. Returns false, and changes nothing, if the key has a value.
    async fn put_new(&self, key: &str, value: &[u8], life: Duration) -> Result<bool, StoreError>;

    /// Removes and returns the value of a key.
    async fn take(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces the value of a key by one that lives this long. Returns false, and changes nothing, if the value is not the
    /// expected one or there is none.
    async fn compare_and_set(
        &self,
        key: &str,
        expected: &[u8],
        value: &[u8],
        life: Duration,
    ) -> Result<bool, StoreError>;
}
