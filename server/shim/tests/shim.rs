//! Tests of the shim as a program, with shell scripts as backends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows them in tests, but does not recognise helper functions of tests"
)]

mod bytes;
mod ends;
mod harness;
mod hold;
mod install;
mod socket;
mod standard_error;
mod starts;
mod stop;
