//! The authorization server from outside: people in a browser, clients that are given the URL alone, and attackers.

mod consent_at_entra;
mod edge;
mod mcp_client;
mod sign_in;
mod site;
mod step_up;
