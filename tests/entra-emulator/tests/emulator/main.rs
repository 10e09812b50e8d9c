//! The emulator's behaviour, seen from its two hosts. One emulator serves all tests; each has tenants of its own.

mod authorization_code;
mod client_assertion;
mod control;
mod graph;
mod metadata;
mod on_behalf_of;
mod program;
mod world;
