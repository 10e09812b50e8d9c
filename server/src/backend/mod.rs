//! Client of another MCP server, the backend. It knows neither the policy nor the revisions of this server's own
//! clients.
//!
//! [`lines`] and [`http`] carry messages. [`events`] and [`line_codec`] find messages in bytes, and [`message`] reads
//! and writes them. [`session`] finds the revision that the backend speaks, and sends requests in it. [`sessions`]
//! keeps a session for each caller. [`catalogue`] reads the backend's lists. [`subscriptions`] records the listeners
//! of resources, and [`subscribing`] subscribes at the backend.

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
use serde_json::{Map, Value};
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

/// A change that a backend reports.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// A list may have changed.
    Lists,
    /// The content of the resource with this URI.
    Resource(String),
    /// Any of these, because the stream of notifications was closed for a while.
    Missed,
}

/// The identity of a caller, which the backend receives with each request.
#[derive(Clone, Default)]
pub enum Identity {
    /// No identity.
    #[default]
    Nothing,
    /// A token of Entra.
    Token(SecretString),
    /// A statement of this server, a new one for each request. It is absent if it cannot be made.
    Asserted(Asserts),
}

/// Maker of statements about a caller. It takes the name of the tool or prompt, the URI of the resource, or the
/// method.
pub type Asserts = Arc<dyn Fn(&str) -> Option<SecretString> + Send + Sync>;

impl Identity {
    /// Returns the identity for one request.
    fn told(&self, target: &str) -> Told {
        match self {
            Self::Nothing => Told::Nothing,
            Self::Token(token) => Told::Token(token.clone()),
            Self::Asserted(asserts) => asserts(target).map_or(Told::Nothing, Told::Assertion),
        }
    }
}

/// Callback for changes. It must not block.
type OnChange = Arc<dyn Fn(Change) + Send + Sync>;

/// Callback for a list that may have changed. It must not block.
pub type OnListChange = Arc<dyn Fn() + Send + Sync>;

/// Callback for notices about a running request. It must not block.
pub type OnNotice = Arc<dyn Fn(Notice) + Send + Sync>;

/// The address of a backend.
#[derive(Clone, Debug)]
pub enum Place {
    /// A Unix socket. At its other end, a process starts for each connection.
    Socket(PathBuf),
    /// An endpoint of streamable HTTP on this machine.
    Endpoint(Url),
}

/// A request to a backend.
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// Params without `_meta`.
    pub params: RawObject,
    /// Name of the tool or prompt, or URI of the resource, if the method has one.
    pub name: Option<&'a str>,
    /// Headers that repeat arguments, each with the text of its argument.
    pub repeated: Vec<(String, String)>,
    /// Capabilities of the client, for a backend whose answers may require input of the client.
    pub capabilities: Arc<Map<String, Value>>,
    /// Lowest severity of the log messages that the client accepts (RFC 5424, in lower case). Absent for no log
    /// messages.
    pub log_level: Option<String>,
    /// Callback for notices about the request.
    pub notices: Option<OnNotice>,
}

/// The reason why the configuration has no valid address of a backend.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The transport needs a socket, and none is named.
    #[error("a backend over stdio is reached by a socket; name it with --backend-socket")]
    NoSocket,
    /// The endpoint is not a URL.
    #[error("backend.transport.streamableHttp.path is not the path of a URL ({0}); correct it")]
    Url(#[from] url::ParseError),
}

impl Place {
    /// Returns the configured address. `socket` is an argument of the program.
    ///
    /// # Errors
    /// If the transport needs a socket and there is none, or the path does not fit into a URL.
    pub fn new(transport: &BackendTransport, socket: Option<PathBuf>) -> Result<Self, PlaceError> {
        match transport {
            BackendTransport::Stdio {} => socket.map(Self::Socket).ok_or(PlaceError::NoSocket),
            BackendTransport::StreamableHttp(http) => {
                let mut url = Url::parse(&format!("http://127.0.0.1:{}", http.port))?;
                // The path is not joined, because a path that begins with two slashes would name another host.
                url.set_path(&http.path);
                Ok(Self::Endpoint(url))
            }
        }
    }
}

/// Returns true if callers share one session.
fn is_shared(sessions: BackendSessions) -> bool {
    sessions == BackendSessions::Shared
}
