//! Tests of the authorization server from outside: users in a browser, clients that only have the URL, and attackers.

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
