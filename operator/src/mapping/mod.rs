//! Reconciles the status of role mappings of both kinds.

pub(crate) mod reconcile;
mod status;
