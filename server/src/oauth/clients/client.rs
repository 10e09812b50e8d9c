//! A client, and the choice of its redirect URI for a request.

use serde::{Deserialize, Serialize};

use super::redirect_uri::RedirectUri;

/// A client that may sign people in. It is public: it has no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The `client_id`.
    pub id: String,
    /// A short id for tokens and the audit log: the id of a listed client, the URL of a document, or `registered:`
    /// with 16 hexadecimal digits.
    pub reference: String,
    /// The name for people. It is unverified unless the client is listed.
    pub name: String,
    /// The source of the client's metadata.
    pub kind: ClientKind,
    /// The redirect URIs, at least one.
    pub redirect_uris: Vec<RedirectUri>,
}

/// The source of a client's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientKind {
    /// The configuration lists it.
    Listed,
    /// A client ID metadata document at this host. The host vouches for its redirect URIs.
    Document {
        /// The host of its `client_id`.
        host: String,
    },
    /// A dynamic registration (RFC 7591). Nobody vouches for it.
    Registered,
}

/// The reason why a request's redirect URI is refused. No answer may be sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectRefusal {
    /// The request names none, and the client does not have exactly one with a fixed port.
    #[error("the request has no redirect_uri; the client must send one that it has registered")]
    Missing,
    /// The client has not registered the named one.
    #[error(
        "the redirect_uri is not registered for this client; remove the client's saved registration and sign in again"
    )]
    NotRegistered,
}

impl Client {
    /// Returns the redirect URI for a request that names this one or none (RFC 6749 §3.1.2.3). The comparison is
    /// exact, except for the port of a loopback URI (RFC 8252 §7.3).
    pub fn redirect(&self, asked: Option<&str>) -> Result<RedirectUri, RedirectRefusal> {
        match (asked, self.redirect_uris.as_slice()) {
            (Some(text), registered) => {
                let asked = RedirectUri::read(text).map_err(|_| RedirectRefusal::NotRegistered)?;
                let is_known = registered.iter().any(|registered| asked.means(registered));
                is_known.then_some(asked).ok_or(RedirectRefusal::NotRegistered)
            }
            (None, [only]) if !only.is_loopback() => Ok(only.clone()),
            (None, _) => Err(RedirectRefusal::Missing),
        }
    }
}
