//! Base of the controllers: options, client, leader election, limits of passes, metrics and errors.

pub(crate) mod api_client;
pub(crate) mod by_uid;
pub(crate) mod errors;
mod fair_shares;
pub(crate) mod leader;
pub(crate) mod metrics;
pub(crate) mod options;
pub(crate) mod pass_limits;
pub(crate) mod permissions;
pub(crate) mod ready_gate;
