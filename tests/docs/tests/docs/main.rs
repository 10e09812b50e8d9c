//! Tests of README and docs: links resolve, manifests and values parse, commands name existing parts, and commands of
//! kubectl, Helm and the Azure CLI do what the pages say. The programs' own tests parse their commands. The kinds' tests
//! validate the manifests with a real API server.
#![cfg(test)] // without this, clippy does not recognise helper functions of tests

mod changelog;
mod cluster;
mod commands;
mod environment;
mod links;
mod manifests;
mod registration;
