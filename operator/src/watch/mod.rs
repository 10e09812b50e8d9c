//! Watches of the API server, their stores and caches, and the objects to reconcile after a change.

pub(crate) mod cache;
pub(crate) mod discovery;
pub(crate) mod gateways;
pub(crate) mod orphaned;
pub(crate) mod scope;
pub(crate) mod stores;
pub(crate) mod triggers;
