//! The backend of a server: the part of the configuration file about another MCP server, which calls are forwarded to.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::registration::is_guid;
use crate::{ConfigurationError, EntraConfiguration};

/// The form of a definition's digest: a SHA-256, in hexadecimal.
pub const DIGEST_PATTERN: &str = "^[0-9a-f]{64}$";

/// The form of the path of a backend's endpoint: one leading slash, no query, no fragment.
pub const BACKEND_PATH_PATTERN: &str = r"^/([^\s?#/\\][^\s?#\\]*)?$";

/// The form of a scope of another application, for an exchange on behalf of users: `api://application/scope`.
pub const BACKEND_SCOPE_PATTERN: &str = r"^(api|https)://[A-Za-z0-9._~/-]+/[A-Za-z0-9._-]+$";

/// Another MCP server, which runs beside the server in each pod and is reached by nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendConfiguration {
    /// The way to it.
    pub transport: BackendTransport,
    /// The identity of the user that it is told.
    #[serde(default)]
    pub identity: BackendIdentity,
    /// Sharing of its sessions and processes among callers.
    #[serde(default)]
    pub sessions: BackendSessions,
    /// Digests of the tools' definitions, by name. Present: a tool of another name or definition is not offered, and a
    /// trailing `*` in a grant means the tools that are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<BTreeMap<String, String>>,
}

/// The way to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BackendTransport {
    /// Lines over a Unix socket, at whose other end a shim runs a process for each connection. The socket's path is an
    /// argument of the program.
    Stdio {},
    /// Streamable HTTP on this pod's loopback address.
    StreamableHttp(HttpBackend),
}

/// A backend that listens on the loopback address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpBackend {
    /// Its port.
    pub port: u16,
    /// Path of its endpoint, with a leading slash.
    pub path: String,
}

/// The identity of the user that a backend is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BackendIdentity {
    /// None.
    #[default]
    None,
    /// A signed statement of this server about the caller, of one minute, for this backend alone.
    Assertion {},
    /// A token of Entra for one resource, on behalf of the user.
    OnBehalfOf(BackendScope),
}

/// A scope of another application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendScope {
    /// The scope, with its resource: `api://application/scope`.
    pub scope: String,
}

impl BackendScope {
    /// The resource and the scope's own name. The last slash divides them.
    pub fn parts(&self) -> (&str, &str) {
        self.scope.rsplit_once('/').unwrap_or(("", &self.scope))
    }

    /// True if the resource may be the server itself, by its client id, an audience or its public URL, in any spelling. A
    /// token for it would let the backend call the server as the user.
    fn is_of(&self, entra: &EntraConfiguration, public_url: Option<&str>) -> bool {
        let resource = segments(self.parts().0);
        let own =
            std::iter::once(&*entra.client_id).chain(entra.audiences.iter().map(String::as_str)).chain(public_url);
        own.map(segments).any(|own| match own.as_slice() {
            [] => false,
            // By its client id an App ID URI names its application, wherever it stands.
            [id] if is_guid(id) => resource.contains(id),
            own => own == resource,
        })
    }
}

/// The parts of a URI between slashes in lower case, without its scheme and without empty ones.
fn segments(uri: &str) -> Vec<String> {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.split('/').filter(|segment| !segment.is_empty()).map(str::to_ascii_lowercase).collect()
}

/// Sharing of a backend's sessions and processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackendSessions {
    /// A session for each caller; over stdio, a process for each.
    #[default]
    PerPrincipal,
    /// One for all callers of a pod.
    Shared,
}

impl BackendConfiguration {
    /// Refuses contradictions that the types cannot exclude, naming the field.
    pub(crate) fn validate(
        &self,
        entra: &EntraConfiguration,
        public_url: Option<&str>,
    ) -> Result<(), ConfigurationError> {
        let is_stdio = matches!(self.transport, BackendTransport::Stdio {});
        if let BackendTransport::StreamableHttp(HttpBackend { port, path }) = &self.transport {
            if *port == 0 {
                return Err(refused("backend.transport.streamableHttp.port", "0", "name the port that it listens on"));
            }
            if !matches(&PATH, path) {
                let next = "write a path with one leading slash, without query, fragment and backslash";
                return Err(refused("backend.transport.streamableHttp.path", path, next));
            }
        }
        if let BackendIdentity::OnBehalfOf(of @ BackendScope { scope }) = &self.identity {
            if is_stdio {
                let next = "use the assertion, or a backend over HTTP: a process has no place for a token";
                return Err(refused("backend.identity.onBehalfOf.scope", scope, next));
            }
            if !matches(&SCOPE, scope) {
                let next = "write one scope with its resource, as api://application/scope";
                return Err(refused("backend.identity.onBehalfOf.scope", scope, next));
            }
            if of.is_of(entra, public_url) {
                let next = "name a scope of the backend's own app registration: with a token for this server, the backend could call it as the user";
                return Err(refused("backend.identity.onBehalfOf.scope", scope, next));
            }
        }
        if self.sessions == BackendSessions::Shared && self.identity != BackendIdentity::None {
            let next = "use PerPrincipal: a session that callers share is begun by one of them";
            return Err(refused("backend.sessions", "Shared", next));
        }
        match self.pin.iter().flatten().find(|(_, digest)| !matches(&DIGEST, digest)) {
            Some((_, digest)) => Err(refused("backend.pin", digest, "write what `mcp-entra-operator pin` prints")),
            None => Ok(()),
        }
    }
}

static PATH: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(BACKEND_PATH_PATTERN).ok());
static SCOPE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(BACKEND_SCOPE_PATTERN).ok());
static DIGEST: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(DIGEST_PATTERN).ok());

fn matches(pattern: &LazyLock<Option<Regex>>, value: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(value))
}

fn refused(field: &'static str, value: &str, next: &'static str) -> ConfigurationError {
    ConfigurationError::Backend { field, value: value.to_owned(), next }
}
