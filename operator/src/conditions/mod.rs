//! Conditions with their reasons and messages, events about them, and status patches.

pub(crate) mod condition;
pub(crate) mod events;
pub(crate) mod pod_trouble;
pub(crate) mod reasons;
pub(crate) mod status_patch;
pub(crate) mod status_write_failure;
