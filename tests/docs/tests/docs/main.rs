//! Tests of README and docs: links resolve, manifests and values parse, commands name existing parts, and the script
//! of the Azure CLI does what its page says. The programs' own tests parse their commands. The kinds' tests
//! validate the manifests with a real API server.
#![cfg(test)] // without this, clippy does not recognise helper functions of tests

mod changelog;
mod commands;
mod environment;
mod links;
mod manifests;
mod registration;
