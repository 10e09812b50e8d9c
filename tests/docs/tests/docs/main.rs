//! Tests of README and docs that need no cluster: links resolve, manifests and values parse, and commands name existing
//! parts. The programs' own tests parse their commands. The kinds' tests validate the manifests with a real API server.
#![cfg(test)] // without this, clippy does not recognise helper functions of tests

mod commands;
mod links;
mod manifests;
