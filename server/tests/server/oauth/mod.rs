//! The authorization server from outside: people in a browser, clients that are given the URL alone, and attackers.

mod access_tokens;
mod aged;
mod authorize;
mod by_hand;
mod callback;
mod codes;
mod consent;
mod consent_at_entra;
mod gateway;
mod key_epochs;
mod leaks;
mod lost_store;
mod mcp_client;
mod metadata;
mod moved;
mod own_sessions;
mod refresh;
mod registration;
mod replica_set;
mod replicas;
mod revocation;
mod sign_in;
mod site;
mod step_up;
mod withdrawn;
