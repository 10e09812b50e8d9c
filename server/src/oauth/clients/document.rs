//! Client ID metadata documents (draft-ietf-oauth-client-id-metadata-document): a client whose id is the URL of its metadata.

use serde_json::Value;
use url::{Host, Url};

use super::client::{Client, ClientKind};
use super::fetch::FetchError;
use super::fields::{self, FieldError};
use super::redirect_uri::{self, RedirectFault};
use super::redirects::{Redirects, distinct};
use crate::strict_json;

/// Greatest length of the URL, in bytes.
pub const MAXIMUM_URL: usize = 256;

/// The URL of a document, which is a `client_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DocumentUrl {
    text: String,
    url: Url,
    host: String,
}

/// The reason why a client with a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The `client_id` begins as a URL, but is none that a document may have.
    #[error("the client_id is no URL of a client ID metadata document: {0}")]
    Url(&'static str),
    /// The configuration lists the hosts that documents come from, or a forward proxy stands between, and this host is not
    /// listed.
    #[error(
        "this server fetches client ID metadata documents from listed hosts alone; ask the platform team to add {0} to \
         spec.authorizationServer.clientMetadataHosts"
    )]
    HostNotListed(String),
    /// The document cannot be fetched.
    #[error("the client ID metadata document cannot be fetched: {0}")]
    Fetch(#[from] FetchError),
    /// It is no JSON object.
    #[error(
        "the client ID metadata document is no JSON object without duplicate members; its publisher has to correct it"
    )]
    NotJson,
    /// A member cannot be used.
    #[error("the client ID metadata document is not usable: {0}; its publisher has to correct it")]
    Field(#[from] FieldError),
    /// It is that of another client.
    #[error("the client ID metadata document names another client_id than its URL; its publisher has to correct it")]
    OtherClient,
    /// The client wants to authenticate itself.
    #[error(
        "the client ID metadata document asks for the client authentication {0:?}, but this server serves public clients \
         alone (token_endpoint_auth_method none); let the client register itself instead, or ask the platform team to list \
         it in spec.authorizationServer.clients"
    )]
    Authentication(String),
    /// It has no redirect URI that may be used; the first reason, if it has any.
    #[error(
        "the client ID metadata document has no redirect URI that may be used{}; ask the platform team for \
         spec.authorizationServer.allowedRedirects",
        .0.map(|fault| format!(" ({fault})")).unwrap_or_default()
    )]
    Redirects(Option<RedirectFault>),
}

impl DocumentUrl {
    /// Reads a `client_id` that begins as a URL (§3 of the draft).
    pub(super) fn read(text: &str) -> Result<Self, DocumentError> {
        let refused = |reason| Err(DocumentError::Url(reason));
        if text.len() > MAXIMUM_URL {
            return refused("it is longer than 256 bytes");
        }
        let Ok(url) = Url::parse(text) else { return refused("it is no URL") };
        if url.scheme() != "https" {
            return refused("it does not begin with https://");
        }
        if url.fragment().is_some() {
            return refused("it has a fragment");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refused("it has a user name or a password");
        }
        let Some(Host::Domain(host)) = url.host() else { return refused("its host is an address, not a name") };
        if !host.contains('.') {
            return refused("its host is no full name");
        }
        if url.path() == "/" {
            return refused("it has no path");
        }
        if !redirect_uri::is_normal(text, &url) {
            return refused("a browser would write it differently (capitals, dot segments, a default port)");
        }
        let host = host.to_owned();
        Ok(Self { text: text.to_owned(), url, host })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// Reads the client that is described by the document at this URL.
pub(super) fn read(url: &DocumentUrl, body: &[u8], redirects: &Redirects) -> Result<Client, DocumentError> {
    let Ok(Value::Object(metadata)) = strict_json::from_slice(body) else { return Err(DocumentError::NotJson) };
    if fields::text(&metadata, "client_id")? != Some(url.as_str()) {
        return Err(DocumentError::OtherClient);
    }
    if let Some(method) = fields::text(&metadata, "token_endpoint_auth_method")?.filter(|method| *method != "none") {
        return Err(DocumentError::Authentication(method.chars().take(64).collect()));
    }
    if metadata.contains_key("client_secret") {
        return Err(DocumentError::Authentication("client_secret".to_owned()));
    }
    fields::check_grants(&metadata)?;
    let sifted = redirects.sift(fields::redirect_uris(&metadata)?, Some(url.url()));
    let redirect_uris = distinct(&sifted.kept);
    if redirect_uris.is_empty() {
        return Err(DocumentError::Redirects(sifted.dropped.map(|(_, fault)| fault)));
    }
    Ok(Client {
        id: url.as_str().to_owned(),
        reference: url.as_str().to_owned(),
        name: fields::name(&metadata)?,
        kind: ClientKind::Document { host: url.host().to_owned() },
        redirect_uris,
    })
}
