//! Clients of the authorization server, and their redirect URIs.
//!
//! A client is listed in the configuration, publishes a client ID metadata document, or registers dynamically.
//! Nothing about it is stored.
//!
//! | Module | Purpose |
//! |---|---|
//! | [`client`] | a client, and the choice of a redirect URI |
//! | [`redirect_uri`] | the form of redirect URIs, and addresses of answers |
//! | [`redirects`] | redirect URIs that any client may register |
//! | [`fields`] | members of client metadata, and names that are safe to show |
//! | [`registration`] | dynamic registration: the `client_id` is the sealed metadata |
//! | [`document`], `documents` | client ID metadata documents, and their cache |
//! | [`fetch`], [`public_addresses`] | the fetch of a document, and the allowed addresses |

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

/// Longest `client_id`, in bytes.
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
    /// The id is unknown: it belongs to another server, was altered, or is older than a replacement of the keys.
    #[error(
        "this server does not know the client_id; remove the client's saved registration (in most clients: sign out of the \
         server, or remove and add it), then sign in again"
    )]
    Unknown,
    /// The configuration allows only listed clients.
    #[error(
        "this server allows only listed clients; ask the platform team to list the client in \
         spec.authorizationServer.clients"
    )]
    NotListed,
    /// The client registered redirect URIs of which the configuration allows none any more.
    #[error(
        "none of the client's registered redirect URIs is allowed any more; ask the platform team for \
         spec.authorizationServer.allowedRedirects"
    )]
    Withdrawn,
    /// The client ID metadata document is not usable.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl Clients {
    /// Returns the clients that this configuration allows.
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

    /// Returns the client with this id: listed, with a document, or registered.
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

    /// True if a client with this id may still be allowed. Uses no network.
    pub fn know(&self, client_id: &str) -> bool {
        match DocumentUrl::read(client_id) {
            Ok(url) => self.admit(client_id, &ClientKind::Document { host: url.host().to_owned() }),
            Err(_) => self.admit(client_id, &ClientKind::Listed) || self.admit(client_id, &ClientKind::Registered),
        }
    }

    /// True if clients may register dynamically.
    pub fn may_register(&self) -> bool {
        self.registration == ClientRegistration::Dynamic
    }

    /// True if client ID metadata documents are allowed.
    pub fn take_documents(&self) -> bool {
        self.may_register() && self.documents.may_come()
    }

    /// True if the client of a session is still allowed: it is listed, or its kind of client is allowed. Uses no
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

    /// Registers a client (RFC 7591) with the body of its request. Returns the body of the answer, whose status is
    /// 201.
    pub fn register(&self, body: &[u8]) -> Result<Value, RegistrationError> {
        if self.registration == ClientRegistration::Listed {
            return Err(RegistrationError::ListedOnly);
        }
        registration::register(body, &self.redirects, &self.sealer, Timestamp::now().as_second())
    }
}

/// Returns a listed client. All its well-formed redirect URIs are allowed.
fn listed(client: &ListedClient) -> Client {
    let redirect_uris = client.redirect_uris.iter().filter_map(|text| match RedirectUri::read(text) {
        Ok(uri) => Some(uri),
        Err(fault) => {
            tracing::warn!(client_id = client.client_id, redirect_uri = text, %fault, "ignoring a redirect URI of a listed client");
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
