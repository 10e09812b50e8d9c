//! A client, and the redirect URI of a request.

use serde::{Deserialize, Serialize};

use super::redirect_uri::RedirectUri;

/// A client that may sign people in. It is public: it has no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its `client_id`.
    pub id: String,
    /// A short id for tokens and the audit log: that of the list, the URL of the document, or `registered:` and 16
    /// hexadecimal digits.
    pub reference: String,
    /// Its name, for people. Unless it is listed, anybody may have chosen it.
    pub name: String,
    /// The way in which it is known.
    pub kind: ClientKind,
    /// Its redirect URIs, at least one.
    pub redirect_uris: Vec<RedirectUri>,
}

/// The way in which a client is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientKind {
    /// The configuration lists it.
    Listed,
    /// It publishes a client ID metadata document at this host: the host vouches for its redirect URIs.
    Document {
        /// The host of its `client_id`.
        host: String,
    },
    /// It has registered itself (RFC 7591): nobody vouches for it.
    Registered,
}

/// The reason why a request's redirect URI is refused. No answer may be sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectRefusal {
    /// The request names none, and the client does not have exactly one with a fixed port.
    #[error("the request names no redirect_uri; the client has to name one of those that it has registered")]
    Missing,
    /// The request names one that the client has not.
    #[error("the redirect_uri is none of this client's; remove the client's saved registration and sign in again")]
    NotRegistered,
}

impl Client {
    /// Returns the redirect URI of a request that names this one, or none (RFC 6749 §3.1.2.3). Compares to the letter;
    /// the port of a loopback URI may be any (RFC 8252 §7.3).
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
