//! Clients of the authorization server, and the redirect URIs that each may use.
//!
//! A client is listed in the configuration, publishes a client ID metadata document, or has registered itself. Nothing about it
//! is stored.
//!
//! | Module | Purpose |
//! |---|---|
//! | [`client`] | a client, and the redirect URI of a request |
//! | [`redirect_uri`] | the form of a redirect URI, and the address that an answer goes to |
//! | [`redirects`] | redirect URIs that clients may name themselves |
//! | [`fields`] | members of client metadata, and names that are safe to show |
//! | [`registration`] | dynamic registration: the `client_id` is the sealed metadata |
//! | [`document`], `documents` | client ID metadata documents, and those that are kept |
//! | [`fetch`], [`public_addresses`] | the request for a document, and the addresses that it may go to |

pub mod client;
pub mod document;
mod documents;
pub mod fetch;
pub mod fields;
pub mod public_addresses;
pub mod redirect_uri;
pub mod redirects;
pub mod registration;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use mcp_entra_policy::{AuthorizationServerConfiguration, ClientRegistration, ListedClient};
use serde_json::Value;

pub use client::{Client, ClientKind, RedirectRefusal};
pub use document::DocumentError;
pub use fetch::{Fetcher, proxy_of};
pub use redirect_uri::{Destination, RedirectUri};
pub use registration::RegistrationError;

use super::seal::Sealer;
use document::DocumentUrl;
use documents::Documents;
use redirects::Redirects;

/// Greatest length of a `client_id`, in bytes. No client of this server has a longer one.
pub const MAXIMUM_ID: usize = 4_096;

/// The clients of one authorization server.
pub struct Clients {
    registration: ClientRegistration,
    listed: HashMap<String, Arc<Client>>,
    redirects: Redirects,
    documents: Documents,
    sealer: Sealer,
}

/// The reason why a `client_id` is refused, with the next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// It is none of this server's: of another server, altered, or from before its keys were replaced.
    #[error(
        "this server does not know the client_id; remove the client's saved registration (in most clients: sign out of the \
         server, or remove and add it), then sign in again"
    )]
    Unknown,
    /// The configuration lets in listed clients alone.
    #[error(
        "this server lets in listed clients alone; ask the platform team to list the client in \
         spec.authorizationServer.clients"
    )]
    NotListed,
    /// The client has registered itself with redirect URIs that the configuration no longer allows.
    #[error(
        "none of the redirect URIs that the client has registered may be used any longer; ask the platform team for \
         spec.authorizationServer.allowedRedirects"
    )]
    Withdrawn,
    /// Its client ID metadata document gives no client.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl Clients {
    /// Returns the clients that this configuration lets in.
    pub fn new(configuration: &AuthorizationServerConfiguration, sealer: Sealer, fetcher: Fetcher) -> Self {
        let listed = configuration.clients.iter().map(|client| (client.client_id.clone(), Arc::new(listed(client))));
        Self {
            registration: configuration.client_registration,
            listed: listed.collect(),
            redirects: Redirects::new(&configuration.allowed_redirects),
            documents: Documents::new(fetcher, &configuration.client_metadata_hosts),
            sealer,
        }
    }

    /// Returns the client of this id: a listed one, or that of a document, or one that has registered itself.
    pub async fn find(&self, client_id: &str) -> Result<Arc<Client>, ClientError> {
        if let Some(client) = self.listed.get(client_id) {
            return Ok(Arc::clone(client));
        }
        if self.registration == ClientRegistration::Listed {
            return Err(ClientError::NotListed);
        }
        if client_id.len() > MAXIMUM_ID {
            return Err(ClientError::Unknown);
        }
        if client_id.starts_with("https://") {
            return Ok(self.documents.find(client_id, &self.redirects).await?);
        }
        let client = registration::open(client_id, &self.redirects, &self.sealer).ok_or(ClientError::Unknown)?;
        if client.redirect_uris.is_empty() {
            return Err(ClientError::Withdrawn);
        }
        Ok(Arc::new(client))
    }

    /// True if a client of this id may still be let in. Asks no network.
    pub fn know(&self, client_id: &str) -> bool {
        match DocumentUrl::read(client_id) {
            Ok(url) => self.admit(client_id, &ClientKind::Document { host: url.host().to_owned() }),
            Err(_) => self.admit(client_id, &ClientKind::Listed) || self.admit(client_id, &ClientKind::Registered),
        }
    }

    /// True if clients may register themselves.
    pub fn may_register(&self) -> bool {
        self.registration == ClientRegistration::Dynamic
    }

    /// True if clients may be described by documents.
    pub fn take_documents(&self) -> bool {
        self.may_register() && self.documents.may_come()
    }

    /// True if the client of a session may still act: it is listed, or clients come by themselves and it still could. Asks no
    /// network.
    pub fn admit(&self, client_id: &str, kind: &ClientKind) -> bool {
        match kind {
            ClientKind::Listed => self.listed.contains_key(client_id),
            _ if self.registration == ClientRegistration::Listed => false,
            ClientKind::Document { host } => self.documents.come_from(host),
            ClientKind::Registered => registration::open(client_id, &self.redirects, &self.sealer)
                .is_some_and(|client| !client.redirect_uris.is_empty()),
        }
    }

    /// Registers a client (RFC 7591) by the body of its request: the body of the answer, whose status is 201.
    pub fn register(&self, body: &[u8]) -> Result<Value, RegistrationError> {
        if self.registration == ClientRegistration::Listed {
            return Err(RegistrationError::ListedOnly);
        }
        registration::register(body, &self.redirects, &self.sealer, Timestamp::now().as_second())
    }
}

/// A listed client may use what is listed, if its form is sound.
fn listed(client: &ListedClient) -> Client {
    let redirect_uris = client.redirect_uris.iter().filter_map(|text| match RedirectUri::read(text) {
        Ok(uri) => Some(uri),
        Err(fault) => {
            tracing::warn!(client_id = client.client_id, redirect_uri = text, %fault, "a listed redirect URI is not usable");
            None
        }
    });
    Client {
        id: client.client_id.clone(),
        reference: client.client_id.clone(),
        name: fields::shown_name(&client.name),
        kind: ClientKind::Listed,
        redirect_uris: redirect_uris.collect(),
    }
}
