//! One reconcile of an McpServer: from what is observed to its children and its status.

pub(crate) mod apply;
pub(crate) mod build;
mod children;
pub(crate) mod context;

pub(crate) mod immutable_config_maps;
pub(crate) mod pass_memory;
pub(crate) mod pod_status;
pub(crate) mod reconcile;
pub(crate) mod resolve;
pub(crate) mod resolved;
pub(crate) mod status;
pub(crate) mod validate;
