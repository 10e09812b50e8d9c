//! Tests of local mode: the program as the child of an MCP client, with an emulated Entra.

mod docs;
mod kept;
mod person;
mod protocol;
mod session;
mod sign_in;
mod terminal;
