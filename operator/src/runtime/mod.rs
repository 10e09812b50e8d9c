//! What a controller runs on: options, client, leader election, work queue, metrics and errors.

pub(crate) mod api_client;
pub(crate) mod by_uid;
pub(crate) mod errors;
pub(crate) mod leader;
pub(crate) mod metrics;
pub(crate) mod options;
pub(crate) mod permissions;
pub(crate) mod ready_gate;
mod shares;
pub(crate) mod work_queue;
