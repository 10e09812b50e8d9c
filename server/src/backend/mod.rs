//! Another MCP server, asked as its client. Knows neither our policy nor the revisions of our own clients.
//!
//! [`lines`] and [`http`] carry messages, [`events`] and [`line_codec`] find them in bytes, [`message`] reads and writes them.
//! [`session`] finds the revision that the backend speaks and asks in it. [`sessions`] keeps a session for each caller,
//! [`catalogue`] reads what the backend has. [`subscriptions`] counts who listens to resources, and [`subscribing`] subscribes.

mod catalogue;
mod error;
mod events;
mod held;
mod http;
mod line_codec;
mod lines;
mod link;
mod listening;
mod message;
mod session;
mod sessions;
mod subscribing;
mod subscriptions;

use std::path::PathBuf;
use std::sync::Arc;

use mcp_entra_policy::{BackendSessions, BackendTransport};
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

pub use catalogue::{Catalogue, Entry};
pub use error::{BackendError, PeerError};
pub use held::Held;
pub use message::Notice;
pub use session::Peer;
pub use sessions::Sessions;
pub use subscriptions::Updates;

use crate::backend_identity::Told;
use crate::raw_json::RawObject;

/// A change that a backend tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// A list may be another one.
    Lists,
    /// The content of the resource with this URI.
    Resource(String),
    /// Any of them: the stream of notifications was closed for a while.
    Missed,
}

/// The identity of a caller, which each request tells the backend.
#[derive(Clone, Default)]
pub enum Identity {
    /// None.
    #[default]
    Nothing,
    /// A token of Entra.
    Token(SecretString),
    /// A statement of this server, another one for each request. None if it cannot be made.
    Asserted(Asserts),
}

/// Makes a statement about a caller. It takes the name of the tool or prompt, the URI of the resource, or the method.
pub type Asserts = Arc<dyn Fn(&str) -> Option<SecretString> + Send + Sync>;

impl Identity {
    /// The identity as one request tells it.
    fn told(&self, target: &str) -> Told {
        match self {
            Self::Nothing => Told::Nothing,
            Self::Token(token) => Told::Token(token.clone()),
            Self::Asserted(asserts) => asserts(target).map_or(Told::Nothing, Told::Assertion),
        }
    }
}

/// Is told of changes. It must not block.
type OnChange = Arc<dyn Fn(Change) + Send + Sync>;

/// Is told that a list may be another one. It must not block.
pub type OnListChange = Arc<dyn Fn() + Send + Sync>;

/// Is told how far a request is. It must not block.
pub type OnNotice = Arc<dyn Fn(Notice) + Send + Sync>;

/// The place where a backend is reached.
#[derive(Clone, Debug)]
pub enum Place {
    /// A Unix socket, at whose other end a process is started for each connection.
    Socket(PathBuf),
    /// An endpoint of streamable HTTP on this machine.
    Endpoint(Url),
}

/// A request to a backend.
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The params, without `_meta`.
    pub params: RawObject,
    /// The name of the tool or prompt, or the URI of the resource, where the method names one.
    pub name: Option<&'a str>,
    /// Headers that repeat arguments, each with the text of its argument.
    pub repeated: Vec<(String, String)>,
    /// Capabilities of the client, for a backend whose answers may require its input.
    pub capabilities: Value,
    /// The least severe log messages that the client takes, by name (RFC 5424, in lower case); absent for none.
    pub log_level: Option<String>,
    /// Is told how far the request is.
    pub notices: Option<OnNotice>,
}

/// The reason why a place of the configuration is none.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A process is reached by a socket, and none is named.
    #[error("a backend over stdio is reached by a socket; name it with --backend-socket")]
    NoSocket,
    /// The endpoint is no URL.
    #[error("backend.transport.streamableHttp.path is no path of a URL ({0}); correct it")]
    Url(#[from] url::ParseError),
}

impl Place {
    /// The configured place. `socket` is an argument of the program.
    ///
    /// # Errors
    /// If the transport takes another argument or path.
    pub fn new(transport: &BackendTransport, socket: Option<PathBuf>) -> Result<Self, PlaceError> {
        match transport {
            BackendTransport::Stdio {} => socket.map(Self::Socket).ok_or(PlaceError::NoSocket),
            BackendTransport::StreamableHttp(http) => {
                let mut url = Url::parse(&format!("http://127.0.0.1:{}", http.port))?;
                // Not joined: a path of two slashes would name another host.
                url.set_path(&http.path);
                Ok(Self::Endpoint(url))
            }
        }
    }
}

/// True if callers share one session.
fn is_shared(sessions: BackendSessions) -> bool {
    sessions == BackendSessions::Shared
}
