//! Notes about objects, kept by uid from one pass to another and forgotten with the object.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Something of each object, by the object's uid.
#[derive(Debug)]
pub(crate) struct ByUid<T>(Mutex<HashMap<String, T>>);

impl<T> Default for ByUid<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> ByUid<T> {
    /// Notes something of an object.
    pub(crate) fn put(&self, uid: &str, value: T) {
        self.lock().insert(uid.to_owned(), value);
    }

    /// Returns what is noted of an object, and forgets it.
    pub(crate) fn take(&self, uid: &str) -> Option<T> {
        self.lock().remove(uid)
    }

    /// Forgets objects that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| exists(uid));
    }

    /// All that is noted.
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<String, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
