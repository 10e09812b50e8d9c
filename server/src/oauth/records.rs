//! Records: sealed and typed values in the store, each bound to its purpose and key.
//!
//! The store sees no ids: the key of a record is its purpose with the SHA-256 of its id.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::seal::{Purpose, Sealer};
use super::store::{Store, StoreError};

/// Initial capacity for the JSON of a record, in bytes. A larger record reallocates and leaves copies in memory.
const USUAL_SIZE: usize = 16 * 1024;

/// The reason why a record cannot be written or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordError {
    /// The store does not answer, or is full.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
    /// The record cannot be written: a defect of this program.
    #[error("a record of the session store cannot be written")]
    Unwritable,
}

/// A record that cannot be read.
struct Unreadable;

/// The records of one issuer. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    store: Arc<dyn Store>,
    sealer: Sealer,
}

/// A record that was read and is still in the store.
pub struct Kept<T> {
    /// Its value.
    pub value: T,
    purpose: Purpose,
    id: String,
    /// The bytes in the store.
    raw: Vec<u8>,
}

impl Records {
    /// Returns the records in this store.
    pub fn new(store: Arc<dyn Store>, sealer: Sealer) -> Self {
        Self { store, sealer }
    }

    /// Stores a record for this long. Returns false, and changes nothing, if the id already has a record.
    pub async fn put_new<T: Serialize>(
        &self,
        purpose: Purpose,
        id: &str,
        value: &T,
        life: Duration,
    ) -> Result<bool, RecordError> {
        let raw = self.seal(purpose, id, value)?;
        Ok(self.store.put_new(&key(purpose, id), &raw, life).await?)
    }

    /// Returns a record, if there is a readable one. An unreadable record stays in the store, because this replica
    /// may not know its key epoch yet.
    pub async fn get<T: DeserializeOwned>(&self, purpose: Purpose, id: &str) -> Result<Option<Kept<T>>, RecordError> {
        let Some(raw) = self.store.get(&key(purpose, id)).await? else {
            return Ok(None);
        };
        match self.open(purpose, id, &raw) {
            Ok(value) => Ok(Some(Kept { value, purpose, id: id.to_owned(), raw })),
            Err(Unreadable) => Ok(None),
        }
    }

    /// Removes and returns a record, if there is a readable one. Of concurrent callers, only one gets it.
    pub async fn take<T: DeserializeOwned>(&self, purpose: Purpose, id: &str) -> Result<Option<T>, RecordError> {
        let raw = self.store.take(&key(purpose, id)).await?;
        Ok(raw.and_then(|raw| self.open(purpose, id, &raw).ok()))
    }

    /// Replaces a record that was read with a value of this lifetime. Returns false, and changes nothing, if the
    /// record has changed since.
    pub async fn replace<T: Serialize>(&self, kept: &Kept<T>, value: &T, life: Duration) -> Result<bool, RecordError> {
        let raw = self.seal(kept.purpose, &kept.id, value)?;
        Ok(self.store.compare_and_set(&key(kept.purpose, &kept.id), &kept.raw, &raw, life).await?)
    }

    fn seal<T: Serialize>(&self, purpose: Purpose, id: &str, value: &T) -> Result<Vec<u8>, RecordError> {
        let mut json = Zeroizing::new(Vec::with_capacity(USUAL_SIZE));
        serde_json::to_writer(&mut *json, value).map_err(|_| RecordError::Unwritable)?;
        let sealed = self.sealer.seal(purpose, id, &json).map_err(|_| RecordError::Unwritable)?;
        Ok(sealed.into_bytes())
    }

    fn open<T: DeserializeOwned>(&self, purpose: Purpose, id: &str, raw: &[u8]) -> Result<T, Unreadable> {
        let opened = || {
            let json = self.sealer.open(purpose, id, std::str::from_utf8(raw).ok()?).ok()?;
            serde_json::from_slice(&json).ok()
        };
        opened().ok_or_else(|| {
            let purpose = purpose.name();
            tracing::warn!(
                purpose,
                "cannot open a record of the session store: it was altered, or its key epoch is no longer listed"
            );
            Unreadable
        })
    }
}

/// Returns the key of a record in the store.
fn key(purpose: Purpose, id: &str) -> String {
    format!("{}:{}", purpose.name(), hex::encode(Sha256::digest(id)))
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::{KeyEpoch, KeyEpochs};

    use super::super::keys::KeyRing;
    use super::super::store::MemoryStore;
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn records(store: &Arc<MemoryStore>, epoch: u32) -> Records {
        let keys = KeyEpochs {
            registration: 1,
            epochs: vec![KeyEpoch { number: epoch, used_from: 0 }],
            after_compromise: None,
        };
        let sealer = Sealer::new(Arc::new(KeyRing::for_test(&keys, "https://mcp.contoso.com/graph")));
        Records::new(store.clone(), sealer)
    }

    fn text(value: &str) -> String {
        value.to_owned()
    }

    #[tokio::test]
    async fn a_record_is_put_once_read_replaced_and_taken_once() {
        let records = records(&Arc::default(), 1);
        assert!(records.put_new(Purpose::Session, "id", &text("a"), LIFE).await.unwrap());
        assert!(!records.put_new(Purpose::Session, "id", &text("b"), LIFE).await.unwrap());
        let first = records.get::<String>(Purpose::Session, "id").await.unwrap().unwrap();
        assert_eq!(first.value, "a");
        assert!(records.replace(&first, &text("c"), LIFE).await.unwrap());
        assert!(!records.replace(&first, &text("d"), LIFE).await.unwrap());
        assert_eq!(records.take::<String>(Purpose::Session, "id").await.unwrap().as_deref(), Some("c"));
        assert_eq!(records.take::<String>(Purpose::Session, "id").await.unwrap(), None);
        assert!(records.get::<String>(Purpose::Session, "id").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_record_is_of_one_purpose_and_id() {
        let records = records(&Arc::default(), 1);
        records.put_new(Purpose::Code, "id", &text("a"), LIFE).await.unwrap();
        assert_eq!(records.take::<String>(Purpose::Session, "id").await.unwrap(), None);
        assert_eq!(records.take::<String>(Purpose::Code, "ID").await.unwrap(), None);
        assert!(records.put_new(Purpose::Session, "id", &text("b"), LIFE).await.unwrap());
        assert_eq!(records.take::<String>(Purpose::Code, "id").await.unwrap().as_deref(), Some("a"));
    }

    #[tokio::test]
    async fn the_store_sees_neither_ids_nor_values() {
        let store = Arc::<MemoryStore>::default();
        records(&store, 1).put_new(Purpose::Code, "secret-id", &text("secret-value"), LIFE).await.unwrap();
        let key = key(Purpose::Code, "secret-id");
        assert_eq!(key, format!("code:{}", hex::encode(Sha256::digest("secret-id"))));
        let raw = String::from_utf8(store.get(&key).await.unwrap().unwrap()).unwrap();
        assert!(!raw.contains("secret"), "{raw}");
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_opened_is_absent_and_is_not_deleted() {
        let store = Arc::<MemoryStore>::default();
        let ours = records(&store, 1);
        ours.put_new(Purpose::Code, "id", &text("a"), LIFE).await.unwrap();
        let raw = store.get(&key(Purpose::Code, "id")).await.unwrap().unwrap();
        for (purpose, id, bytes) in [
            (Purpose::Code, "other", raw.as_slice()),
            (Purpose::Session, "id", &raw),
            (Purpose::Session, "altered", b"\xff"),
        ] {
            store.put_new(&key(purpose, id), bytes, LIFE).await.unwrap();
            assert!(ours.get::<String>(purpose, id).await.unwrap().is_none(), "{purpose:?} {id}");
            assert!(ours.take::<String>(purpose, id).await.unwrap().is_none(), "{purpose:?} {id}");
        }
        let later = records(&store, 2);
        assert!(later.get::<String>(Purpose::Code, "id").await.unwrap().is_none());
        assert!(ours.get::<u32>(Purpose::Code, "id").await.unwrap().is_none());
        assert_eq!(ours.take::<String>(Purpose::Code, "id").await.unwrap().as_deref(), Some("a"));
    }
}
