//! One reconcile of an McpServer: from the observed objects to its children and its status.

pub(crate) mod apply;
pub(crate) mod build;
mod claim;
mod conclude;
pub(crate) mod context;
mod execute;
pub(crate) mod immutable_config_maps;
pub(crate) mod keys;
mod observe;
mod outcome;
pub(crate) mod pass_memory;
mod plan;
pub(crate) mod pod_status;
mod poll;
pub(crate) mod reconcile;
pub(crate) mod resolve;
pub(crate) mod resolved;
pub(crate) mod status;
mod take_away;
pub(crate) mod validate;
