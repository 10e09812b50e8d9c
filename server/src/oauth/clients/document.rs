//! Client ID metadata documents (draft-ietf-oauth-client-id-metadata-document). The id of such a client is the URL of
//! its metadata.

use serde_json::Value;
use url::{Host, Url};

use super::client::{Client, ClientKind};
use super::fetch::FetchError;
use super::fields::{self, FieldError};
use super::redirect_uri::{self, RedirectFault};
use super::redirects::{Redirects, distinct};
use crate::strict_json;

/// Longest URL, in bytes.
pub const MAXIMUM_URL: usize = 256;

/// The URL of a document, used as a `client_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DocumentUrl {
    text: String,
    url: Url,
    host: String,
}

/// The reason why a client with a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The `client_id` looks like a URL but is not allowed for a document.
    #[error("the client_id is not a valid URL of a client ID metadata document: {0}")]
    Url(&'static str),
    /// The host is not listed, and only listed hosts are allowed by the configuration or because of a forward proxy.
    #[error(
        "this server fetches client ID metadata documents only from listed hosts; ask the platform team to add {0} to \
         spec.authorizationServer.clientMetadataHosts"
    )]
    HostNotListed(String),
    /// The document cannot be fetched.
    #[error("the client ID metadata document cannot be fetched: {0}")]
    Fetch(#[from] FetchError),
    /// The document is not a JSON object.
    #[error(
        "the client ID metadata document is not a JSON object without duplicate members; its publisher must correct it"
    )]
    NotJson,
    /// A member has an invalid value.
    #[error("the client ID metadata document is not usable: {0}; its publisher must correct it")]
    Field(#[from] FieldError),
    /// The document belongs to another client.
    #[error("the client ID metadata document names another client_id than its URL; its publisher must correct it")]
    OtherClient,
    /// The document requires client authentication.
    #[error(
        "the client ID metadata document requires the client authentication {0:?}, but this server supports only public \
         clients (token_endpoint_auth_method none); let the client register itself instead, or ask the platform team to list \
         it in spec.authorizationServer.clients"
    )]
    Authentication(String),
    /// The document has no allowed redirect URI. Contains the reason for the first one, if any.
    #[error(
        "the client ID metadata document has no allowed redirect URI{}; ask the platform team for \
         spec.authorizationServer.allowedRedirects",
        .0.map(|fault| format!(" ({fault})")).unwrap_or_default()
    )]
    Redirects(Option<RedirectFault>),
}

impl DocumentUrl {
    /// Parses a `client_id` that looks like a URL (§3 of the draft).
    pub(super) fn read(text: &str) -> Result<Self, DocumentError> {
        let refused = |reason| Err(DocumentError::Url(reason));
        if text.len() > MAXIMUM_URL {
            return refused("it is longer than 256 bytes");
        }
        let Ok(url) = Url::parse(text) else { return refused("it is not a URL") };
        if url.scheme() != "https" {
            return refused("it does not begin with https://");
        }
        if url.fragment().is_some() {
            return refused("it has a fragment");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refused("it has a user name or a password");
        }
        let Some(Host::Domain(host)) = url.host() else { return refused("its host is an IP address, not a name") };
        if !host.contains('.') {
            return refused("its host is not a fully qualified name");
        }
        if url.path() == "/" {
            return refused("it has no path");
        }
        if !redirect_uri::is_normal(text, &url) {
            return refused("it is not in normal form (it has capitals, dot segments or a default port)");
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

/// Parses the client in the document at this URL.
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
