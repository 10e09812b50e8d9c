//! The authorization server between MCP clients and Entra: an OAuth 2.1 server for clients, a confidential client for Entra
//! whose only credential is the federated one.
//!
//! Entra registers no client by itself, reads no client ID metadata document and knows no MCP URL as a resource. Here clients
//! register, people consent for each client, and Entra signs them in. The access tokens are this server's own; Entra's tokens
//! stay in the sealed session.
//!
//! | Module | Purpose |
//! |---|---|
//! | [`addresses`], [`metadata`] | issuer and endpoints, and the documents that clients discover them by |
//! | [`keys`], [`seal`] | keys by purpose and epoch, and what is sealed with them |
//! | [`store`], [`records`] | the place that all replicas share, and what is kept there |
//! | [`clients`] | clients and their redirect URIs |
//! | [`pages`] | what people see |

pub mod addresses;
pub mod clients;
pub mod keys;
pub mod metadata;
pub mod pages;
pub mod records;
pub mod seal;
pub mod store;
