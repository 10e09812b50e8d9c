//! The keys of a server's authorization server, in epochs. Each epoch is a ConfigMap, which says when and why it began, and
//! a Secret of the same name with a random key, which the ConfigMap owns: the operator creates Secrets, and reads, changes
//! and deletes none. Where the ConfigMap is deleted, garbage collection takes the Secret.
//!
//! [`epochs`] decides which epochs there are to be, [`names`] gives them names, [`seen`] reads those that there are,
//! [`objects`] builds both objects, [`write`] makes what is lacking and deletes what is no longer used.

pub(crate) mod epochs;
pub(crate) mod names;
pub(crate) mod objects;
pub(crate) mod seen;
pub(crate) mod write;
