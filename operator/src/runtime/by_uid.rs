//! Values by object uid, which are kept between passes and forgotten with the object.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A value for each object, by its uid.
#[derive(Debug)]
pub(crate) struct ByUid<T>(Mutex<HashMap<String, T>>);

impl<T> Default for ByUid<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> ByUid<T> {
    /// Stores the value of an object.
    pub(crate) fn put(&self, uid: &str, value: T) {
        self.lock().insert(uid.to_owned(), value);
    }

    /// Removes and returns the value of an object.
    pub(crate) fn take(&self, uid: &str) -> Option<T> {
        self.lock().remove(uid)
    }

    /// Forgets the values of objects that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| exists(uid));
    }

    /// Returns all values.
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<String, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
