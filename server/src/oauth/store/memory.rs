//! The session store of a single pod: its memory.
//!
//! A cache such as moka evicts live values when it is full, which would sign people out. This store refuses new
//! values instead. It needs no background task: each operation first removes expired values.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{Store, StoreError};

/// Most values in the store.
const MAXIMUM_VALUES: usize = 50_000;
/// Most memory for values, in bytes: a quarter of the pod's usual limit.
const MAXIMUM_BYTES: usize = 64 * 1024 * 1024;
/// Lifetime up to which a value is brief: a sign-in in progress, which anybody can start.
const BRIEF: Duration = Duration::from_secs(3600);
/// Divisor of the memory that brief values may use, so that they cannot displace sessions.
const BRIEF_SHARE: usize = 4;
/// Approximate overhead of a value, in bytes.
const OVERHEAD: usize = 256;

/// A store in memory. It ends with the process.
pub struct MemoryStore {
    values: Mutex<Values>,
}

struct Values {
    by_key: HashMap<Arc<str>, Value>,
    by_end: BTreeSet<(Instant, Arc<str>)>,
    bytes: usize,
    /// The part of `bytes` in brief values.
    brief_bytes: usize,
    maximum_values: usize,
    maximum_bytes: usize,
}

struct Value {
    bytes: Zeroizing<Vec<u8>>,
    end: Instant,
    is_brief: bool,
}

impl MemoryStore {
    /// Returns an empty store for at most 50 000 values in 64 MiB.
    pub fn new() -> Self {
        Self::bounded(MAXIMUM_VALUES, MAXIMUM_BYTES)
    }

    fn bounded(maximum_values: usize, maximum_bytes: usize) -> Self {
        let (by_key, by_end) = (HashMap::new(), BTreeSet::new());
        Self { values: Mutex::new(Values { by_key, by_end, bytes: 0, brief_bytes: 0, maximum_values, maximum_bytes }) }
    }

    /// Calls a function with the live values.
    fn with<T>(&self, work: impl FnOnce(&mut Values) -> T) -> T {
        self.at(Instant::now(), work)
    }

    fn at<T>(&self, now: Instant, work: impl FnOnce(&mut Values) -> T) -> T {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.drop_ended(now);
        work(&mut values)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.with(|values| values.by_key.get(key).map(|value| value.bytes.to_vec())))
    }

    async fn put_new(&self, key: &str, value: &[u8], life: Duration) -> Result<bool, StoreError> {
        self.with(|values| {
            if values.by_key.contains_key(key) {
                return Ok(false);
            }
            values.insert(key, value, life)
        })
    }

    async fn take(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.with(|values| values.remove(key)).map(|value| value.bytes.to_vec()))
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: &[u8],
        value: &[u8],
        life: Duration,
    ) -> Result<bool, StoreError> {
        self.with(|values| {
            if values.by_key.get(key).is_none_or(|value| *value.bytes != expected) {
                return Ok(false);
            }
            values.insert(key, value, life)
        })
    }
}

impl Values {
    fn drop_ended(&mut self, now: Instant) {
        while let Some((_, key)) = self.by_end.first().filter(|(end, _)| *end <= now) {
            let key = Arc::clone(key);
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &str) -> Option<Value> {
        let (key, value) = self.by_key.remove_entry(key)?;
        let size = size(&key, &value.bytes);
        self.bytes -= size;
        self.brief_bytes -= if value.is_brief { size } else { 0 };
        self.by_end.remove(&(value.end, key));
        Some(value)
    }

    /// Stores or replaces a value, if there is room.
    fn insert(&mut self, key: &str, bytes: &[u8], life: Duration) -> Result<bool, StoreError> {
        let is_brief = life <= BRIEF;
        let replaced = self.by_key.get(key).map(|value| size(key, &value.bytes));
        let brief = if is_brief { self.brief_bytes + size(key, bytes) } else { 0 };
        let count = self.by_key.len() + usize::from(replaced.is_none());
        let total = self.bytes - replaced.unwrap_or(0) + size(key, bytes);
        if count > self.maximum_values || total > self.maximum_bytes || brief > self.maximum_bytes / BRIEF_SHARE {
            let (values, bytes) = (self.by_key.len(), self.bytes);
            return Err(StoreError::Full(format!(
                "{values} values in {bytes} bytes of memory; use a Valkey store, or wait until sign-ins and sessions end"
            )));
        }
        let size_of_new = size(key, bytes);
        self.remove(key);
        let (key, end) = (Arc::<str>::from(key), Instant::now() + life);
        self.by_end.insert((end, Arc::clone(&key)));
        self.by_key.insert(key, Value { bytes: Zeroizing::new(bytes.to_vec()), end, is_brief });
        self.bytes = total;
        self.brief_bytes += if is_brief { size_of_new } else { 0 };
        Ok(true)
    }
}

fn size(key: &str, bytes: &[u8]) -> usize {
    key.len() + bytes.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lifetime that is not brief.
    const LASTING: Duration = Duration::from_secs(2 * 3600);

    const LIFE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn an_expired_value_is_removed_and_frees_its_memory() {
        let store = MemoryStore::new();
        let start = Instant::now();
        assert!(store.put_new("short", b"value", LIFE).await.unwrap());
        assert!(store.put_new("long", b"value", 3 * LIFE).await.unwrap());
        let keys = |values: &mut Values| values.by_key.keys().map(ToString::to_string).collect::<BTreeSet<_>>();
        assert_eq!(store.at(start + LIFE - Duration::from_millis(1), keys), ["long".into(), "short".into()].into());
        assert_eq!(store.at(start + 2 * LIFE, keys), ["long".to_owned()].into());
        store.at(start + 4 * LIFE, |values| {
            assert_eq!((values.by_key.len(), values.by_end.len(), values.bytes), (0, 0, 0))
        });
    }

    #[tokio::test]
    async fn a_new_lifetime_replaces_the_old_one() {
        let store = MemoryStore::new();
        let start = Instant::now();
        store.put_new("key", b"old", LIFE).await.unwrap();
        assert!(store.compare_and_set("key", b"old", b"new", 3 * LIFE).await.unwrap());
        let value = |values: &mut Values| values.by_key.get("key").map(|value| value.bytes.to_vec());
        assert_eq!(store.at(start + 2 * LIFE, value).as_deref(), Some(&b"new"[..]));
        assert_eq!(store.at(start + 4 * LIFE, value), None);
    }

    #[tokio::test]
    async fn a_full_store_refuses_new_values_and_keeps_those_that_live() {
        for store in [MemoryStore::bounded(2, usize::MAX), MemoryStore::bounded(9, 2 * size("a", b"1"))] {
            assert!(store.put_new("a", b"1", LASTING).await.unwrap());
            assert!(store.put_new("b", b"2", LASTING).await.unwrap());
            let error = store.put_new("c", b"3", LASTING).await.unwrap_err();
            assert!(matches!(&error, StoreError::Full(text) if text.contains("use a Valkey store")), "{error}");
            assert!(!store.put_new("a", b"4", LASTING).await.unwrap());
            assert!(store.compare_and_set("a", b"1", b"5", LASTING).await.unwrap());
            assert_eq!(store.get("a").await.unwrap().as_deref(), Some(&b"5"[..]));
            store.take("b").await.unwrap().unwrap();
            assert!(store.put_new("c", b"3", LASTING).await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_value_that_would_exceed_the_bound_keeps_its_old_content() {
        let store = MemoryStore::bounded(9, size("a", b"1"));
        store.put_new("a", b"1", LASTING).await.unwrap();
        store.compare_and_set("a", b"1", b"22", LASTING).await.unwrap_err();
        assert_eq!(store.get("a").await.unwrap().as_deref(), Some(&b"1"[..]));
        assert!(store.compare_and_set("a", b"1", b"2", LASTING).await.unwrap());
    }

    #[tokio::test]
    async fn open_sign_ins_use_at_most_a_quarter_of_the_store() {
        let store = MemoryStore::bounded(99, 8 * size("a", b"1"));
        for key in ["a", "b"] {
            assert!(store.put_new(key, b"1", LIFE).await.unwrap());
        }
        store.put_new("c", b"1", LIFE).await.unwrap_err();
        assert!(store.put_new("d", b"1", LASTING).await.unwrap());
        store.take("a").await.unwrap().unwrap();
        assert!(store.put_new("c", b"1", LIFE).await.unwrap());
    }
}
