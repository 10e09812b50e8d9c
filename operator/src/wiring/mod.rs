//! Starts the operator: watches, controllers, leader election and the HTTP endpoints.

pub(crate) mod allowed_hosts;
mod condition_metrics;
pub(crate) mod endpoints;
pub(crate) mod run;
