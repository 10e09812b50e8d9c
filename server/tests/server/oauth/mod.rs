//! The authorization server from outside: people in a browser, clients that are given the URL alone, and attackers.

<<<<<<< HEAD
mod consent_at_entra;
=======
mod access_tokens;
mod aged;
mod authorize;
mod by_hand;
mod callback;
mod codes;
mod consent;
>>>>>>> 26328e1 (Attack the authorization server from outside, and ask it for every MUST)
mod edge;
mod leaks;
mod mcp_client;
mod metadata;
mod moved;
mod own_sessions;
mod refresh;
mod registration;
mod revocation;
mod sign_in;
mod site;
mod step_up;
