//! Objects as the API server showed them: watches, stores and caches, and which objects a change concerns.

pub(crate) mod cache;
pub(crate) mod discovery;
pub(crate) mod gateways;
pub(crate) mod orphaned;
pub(crate) mod scope;
pub(crate) mod stores;
pub(crate) mod triggers;
