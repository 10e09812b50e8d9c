//! Tests of the server from outside: over HTTP, with an emulated Entra and Graph.
// Clippy allows tests to unwrap. Without this, it does not recognise helper functions of tests.
#![cfg(test)]

mod abuse;
mod application_access;
mod authentication;
mod authorization;
mod backends;
mod browsers;
mod claims_challenges;
mod groups;
mod harness;
mod identity;
mod local;
mod mailboxes;
mod messages;
mod oauth;
mod operation;
mod pins;
mod program;
mod prompts;
mod rate_limits;
mod refusals;
mod resources;
mod schemas;
mod scripted;
mod stores;
mod tenant;
mod tools;
mod valkey;
mod writes;
