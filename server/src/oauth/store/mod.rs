//! The store of sessions and sign-ins, shared by all replicas.
//!
//! Values are sealed before they come here. Each value expires at the end of its lifetime.

mod memory;
mod valkey;

use std::time::Duration;

use async_trait::async_trait;

pub use memory::MemoryStore;
pub use valkey::{ValkeyError, ValkeyStore};

/// The reason why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store does not answer as expected. It may have carried out the command nevertheless.
    #[error("the session store is not available: {0}")]
    Unavailable(String),
    /// The store is full. It never evicts live values.
    #[error("the session store is full: {0}")]
    Full(String),
}

/// A store of values with lifetimes. Each operation is atomic and fails within seconds.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns the value of a key.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Stores a value for this long. Returns false, and changes nothing, if the key has a value.
    async fn put_new(&self, key: &str, value: &[u8], life: Duration) -> Result<bool, StoreError>;

    /// Removes and returns the value of a key.
    async fn take(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces the value of a key with one of this lifetime. Returns false, and changes nothing, if the present
    /// value is not the expected one.
    async fn compare_and_set(
        &self,
        key: &str,
        expected: &[u8],
        value: &[u8],
        life: Duration,
    ) -> Result<bool, StoreError>;
}
