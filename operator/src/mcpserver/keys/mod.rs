//! Keys of a server's authorization server, in epochs. Each epoch is a ConfigMap with its start and cause, and a Secret
//! of the same name with a random key. The ConfigMap owns the Secret. The operator creates Secrets, but never reads,
//! changes or deletes one: the garbage collector deletes the Secret after its ConfigMap.
//!
//! [`epochs`] decides which epochs should exist, [`names`] names them, [`seen`] reads the existing ones, [`objects`]
//! builds both objects, [`mod@write`] creates missing epochs and deletes unused ones.

pub(crate) mod epochs;
pub(crate) mod names;
pub(crate) mod objects;
pub(crate) mod seen;
pub(crate) mod write;
