//! Backend section of the configuration file: another MCP server that receives the calls.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::registration::is_guid;
use crate::{ConfigurationError, EntraConfiguration};

/// Pattern of the digest of a tool definition: a SHA-256 in hexadecimal.
pub const DIGEST_PATTERN: &str = "^[0-9a-f]{64}$";

/// Pattern of the path of a backend's endpoint: one leading slash, no query, no fragment.
pub const BACKEND_PATH_PATTERN: &str = r"^/([^\s?#/\\][^\s?#\\]*)?$";

/// Pattern of a scope of another application, for the on-behalf-of exchange: `api://application/scope`.
pub const BACKEND_SCOPE_PATTERN: &str = r"^(api|https)://[A-Za-z0-9._~/-]+/[A-Za-z0-9._-]+$";

/// Another MCP server in each pod. Only the server can reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendConfiguration {
    /// Transport of the connection to the backend.
    pub transport: BackendTransport,
    /// Identity of the caller that the backend receives.
    #[serde(default)]
    pub identity: BackendIdentity,
    /// Sharing of the backend's sessions and processes among callers.
    #[serde(default)]
    pub sessions: BackendSessions,
    /// Digests of the tool definitions, by tool name. If set, the server hides each tool with another name or
    /// definition. A prefix with a trailing `*` in a grant then selects the remaining tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<BTreeMap<String, String>>,
}

/// Transport of the connection to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BackendTransport {
    /// Lines on a Unix socket. A shim listens on it and runs a process for each connection. An argument of the program
    /// sets the path of the socket.
    Stdio {},
    /// Streamable HTTP on this pod's loopback address.
    StreamableHttp(HttpBackend),
}

/// Backend that listens on the loopback address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpBackend {
    /// TCP port.
    pub port: u16,
    /// Path of the MCP endpoint, with a leading slash.
    pub path: String,
}

/// Identity of the caller that a backend receives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BackendIdentity {
    /// No identity.
    #[default]
    None,
    /// JSON Web Token about the caller, signed by this server. It is valid for one minute and only for this backend.
    Assertion {},
    /// Access token of Entra for one resource, on behalf of the user.
    OnBehalfOf(BackendScope),
}

/// Scope of another application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendScope {
    /// Scope with its resource, such as `api://application/scope`.
    pub scope: String,
}

impl BackendScope {
    /// Returns the resource and the name of the scope. The last slash separates them.
    pub fn parts(&self) -> (&str, &str) {
        self.scope.rsplit_once('/').unwrap_or(("", &self.scope))
    }

    /// Returns whether the resource may be the server itself, by its client id, an audience or its public URL, in any
    /// spelling. With such a token the backend could call the server as the user.
    fn is_of(&self, entra: &EntraConfiguration, public_url: Option<&str>) -> bool {
        let resource = segments(self.parts().0);
        let own =
            std::iter::once(&*entra.client_id).chain(entra.audiences.iter().map(String::as_str)).chain(public_url);
        own.map(segments).any(|own| match own.as_slice() {
            [] => false,
            // An App ID URI that contains the client id means this application, at any position.
            [id] if is_guid(id) => resource.contains(id),
            own => own == resource,
        })
    }
}

/// Returns the non-empty path segments of a URI in lower case, without its scheme.
fn segments(uri: &str) -> Vec<String> {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.split('/').filter(|segment| !segment.is_empty()).map(str::to_ascii_lowercase).collect()
}

/// Sharing of a backend's sessions and processes among callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackendSessions {
    /// One session for each caller. With stdio, one process for each caller.
    #[default]
    PerPrincipal,
    /// One session, or process, for all callers of a pod.
    Shared,
}

impl BackendConfiguration {
    /// Returns an error that names the field if values contradict each other.
    pub(crate) fn validate(
        &self,
        entra: &EntraConfiguration,
        public_url: Option<&str>,
    ) -> Result<(), ConfigurationError> {
        let is_stdio = matches!(self.transport, BackendTransport::Stdio {});
        if let BackendTransport::StreamableHttp(HttpBackend { port, path }) = &self.transport {
            if *port == 0 {
                return Err(refused(
                    "backend.transport.streamableHttp.port",
                    "0",
                    "set the port that the backend listens on",
                ));
            }
            if !matches(&PATH, path) {
                let next = "write a path with one leading slash, without query, fragment and backslash";
                return Err(refused("backend.transport.streamableHttp.path", path, next));
            }
        }
        if let BackendIdentity::OnBehalfOf(of @ BackendScope { scope }) = &self.identity {
            if is_stdio {
                let next = "use the assertion or an HTTP backend, since a process cannot receive tokens";
                return Err(refused("backend.identity.onBehalfOf.scope", scope, next));
            }
            if !matches(&SCOPE, scope) {
                let next = "write one scope with its resource, such as api://application/scope";
                return Err(refused("backend.identity.onBehalfOf.scope", scope, next));
            }
            if of.is_of(entra, public_url) {
                let next = "use a scope of the backend's own app registration, since with a token for this server the backend could call it as the user";
                return Err(refused("backend.identity.onBehalfOf.scope", scope, next));
            }
        }
        if self.sessions == BackendSessions::Shared && self.identity != BackendIdentity::None {
            let next = "use PerPrincipal, since a shared session has the identity of its first caller";
            return Err(refused("backend.sessions", "Shared", next));
        }
        match self.pin.iter().flatten().find(|(_, digest)| !matches(&DIGEST, digest)) {
            Some((_, digest)) => Err(refused("backend.pin", digest, "use the output of `mcp-entra-operator pin`")),
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
