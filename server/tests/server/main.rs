//! The server from outside: over HTTP, before an emulated Entra and Graph.

mod authentication;
mod authorization;
mod harness;
mod identity;
mod issuer;
mod messages;
mod operation;
mod program;
mod tenant;
mod tools;
