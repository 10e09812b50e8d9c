//! Clients of the authorization server, and the redirect URIs that each may use.
//!
//! | Module | Purpose |
//! |---|---|
//! | [`client`] | a client, and the redirect URI of a request |
//! | [`redirect_uri`] | the form of a redirect URI, and the address that an answer goes to |
//! | [`redirects`] | redirect URIs that clients may name themselves |
//! | [`fields`] | members of client metadata, and names that are safe to show |

pub mod client;
pub mod fields;
pub mod redirect_uri;
pub mod redirects;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientKind, RedirectRefusal};
pub use redirect_uri::{Destination, RedirectUri};
