//! Tests of the emulator through its two hosts. All tests share one emulator; each has its own tenants.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::type_complexity,
    reason = "helpers of tests may say what they expect, as the tests themselves may"
)]

mod authorization_code;
mod batch;
mod browser;
mod browser_session;
mod client_assertion;
mod confidential_client;
mod consent;
mod control;
mod device_code;
mod faults;
mod graph;
mod metadata;
mod on_behalf_of;
mod program;
mod refused_users;
mod several_resources;
mod step_up;
mod stock_clients;
mod world;
