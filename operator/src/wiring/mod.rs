//! Startup of the operator: watches, controllers, leader election and HTTP endpoints.

mod condition_metrics;
pub(crate) mod endpoints;
pub(crate) mod run;
pub(crate) mod startup_check;
