//! The server's configuration file, which the operator writes into a ConfigMap and the server reads once at start.
//!
//! It holds no paths and no secrets: where files lie is an argument of the program, and the only credential is the
//! service account token that `AZURE_FEDERATED_TOKEN_FILE` names.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use ipnet::IpNet;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AuthorizationServerConfiguration, BackendConfiguration, is_microsofts_own, registration::is_guid};

/// The key of the configuration file in its ConfigMap, and its file name.
pub const CONFIGURATION_KEY: &str = "config.yaml";

/// The form of an origin, as browsers send it. The API server holds McpServers to the same.
pub const ORIGIN_PATTERN: &str =
    r"^(https://[a-z0-9-]+(\.[a-z0-9-]+)*|http://(localhost|127\.0\.0\.1|\[::1\]))(:[1-9][0-9]{0,4})?$";

/// The server's configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerConfiguration {
    /// Which McpServer this is: named in audit lines and messages.
    pub server: ServerReference,
    /// The URL that clients connect to, `https://host/path`. The protected resource metadata's `resource` (RFC 9728)
    /// and the accepted `Host` follow from it. Absent for a server that is reachable inside its cluster only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// The path of the MCP endpoint, with a leading slash, the same as in `publicUrl`.
    pub path: String,
    /// The tokens that are accepted, and the server's identity in Entra.
    pub entra: EntraConfiguration,
    /// Access of the built-in tools to Microsoft Graph. A server with a backend asks Graph for groups alone.
    pub graph: GraphConfiguration,
    /// Another MCP server, which is offered instead of the built-in tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendConfiguration>,
    /// Interval of the probes of the federated credential.
    pub probe: ProbeConfiguration,
    /// Limits of a caller's requests.
    #[serde(default)]
    pub rate_limit: RateLimitConfiguration,
    /// Additions to the audit log.
    #[serde(default, skip_serializing_if = "AuditConfiguration::is_default")]
    pub audit: AuditConfiguration,
    /// Proxies before the server, as ranges of addresses: of a request that one of these sends, `X-Forwarded-For` is
    /// believed as far as they wrote it. Of others it never is.
    #[schemars(with = "Vec<String>")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may call the server from a browser, besides the public URL's own, as browsers send them:
    /// `https://host[:port]`, or `http` of this machine (`localhost`, `127.0.0.1`, `[::1]`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// The authorization server for clients that cannot sign in to Entra themselves. Needs `publicUrl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_server: Option<AuthorizationServerConfiguration>,
}

/// The name of an McpServer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The tokens that are accepted, and the server's identity in Entra.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntraConfiguration {
    /// The tenant's id, a GUID in lower case.
    pub tenant_id: String,
    /// The server's app registration, a GUID in lower case: audience of user tokens, client of the on-behalf-of
    /// exchange.
    pub client_id: String,
    /// Base address of the authority, https, without a path or trailing slash.
    pub authority: String,
    /// Audiences accepted besides `clientId` and `api://<clientId>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// A user token carries at least one of these scopes (bare names, as in `scp`).
    pub required_scopes: Vec<String>,
    /// Client ids (`azp` or `appid`) whose tokens are accepted, GUIDs in lower case. Empty: any that Entra lets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_clients: Vec<String>,
    /// The versions of access tokens that are accepted.
    #[serde(default = "TokenVersion::by_default")]
    pub token_versions: BTreeSet<TokenVersion>,
    /// Where a user's groups are learnt.
    #[serde(default)]
    pub groups: GroupsSource,
}

/// A version of Entra's access tokens. It follows `api.requestedAccessTokenVersion` of the server's app registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TokenVersion {
    /// Version 1, issued by `https://sts.windows.net/<tenant>/`.
    V1,
    /// Version 2, issued by `<authority>/<tenant>/v2.0`.
    V2,
}

impl TokenVersion {
    /// The default.
    pub fn by_default() -> BTreeSet<Self> {
        BTreeSet::from([Self::V2])
    }
}

/// Where a user's groups are learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GroupsSource {
    /// From the token; where its groups claim is absent or stands for too many, Graph is asked about the groups that
    /// the policy names.
    #[default]
    Resolve,
    /// From the token alone: the app registration emits all groups that matter, and an absent claim means none. Groups
    /// that were too many for the token stay unknown.
    InToken,
}

/// Access of the built-in tools to Microsoft Graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GraphConfiguration {
    /// Base address of Microsoft Graph, https, without a version or trailing slash.
    pub base_url: String,
    /// Delegated permissions asked for in the on-behalf-of exchange, as `User.Read`.
    pub scopes: Vec<String>,
    /// The built-in tools that this server offers: exact names, no patterns.
    pub tools: Vec<String>,
    /// The widest access to Graph.
    #[serde(default)]
    pub access: GraphAccess,
}

/// Access to Microsoft Graph, the narrower first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum GraphAccess {
    /// As the signed-in user.
    #[default]
    OnBehalfOf,
    /// As the application itself, with its tenant-wide permissions.
    Application,
}

impl GraphAccess {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Limits of a caller's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitConfiguration {
    /// Each user, and each application by itself, in each pod.
    pub per_user: Rate,
}

/// So many requests in so much time; as many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// Number of requests, at least one.
    pub requests: u32,
    /// In this many seconds, at least one.
    pub per_seconds: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { requests: 120, per_seconds: 60 }
    }
}

/// Additions to the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditConfiguration {
    /// True if each line carries the hash of the one before it, so that a line that was changed or taken out shows.
    #[serde(default)]
    pub hash_chain: bool,
}

impl AuditConfiguration {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Interval of the probes of the federated credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeConfiguration {
    /// Seconds between probes while the exchange works. While it fails, the first retry comes after ten seconds or
    /// after this interval, whichever is shorter, and the pause doubles up to a minute: Entra throttles.
    pub interval_seconds: u32,
}

/// The reason why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// An address is not `https://host[:port]`.
    #[error(
        "{field}: {value:?} is not an https address without path or trailing slash; correct it in the McpServer or the configuration file"
    )]
    Address {
        /// The field's path in the file.
        field: &'static str,
        /// The text that stands there.
        value: String,
    },
    /// A value is not a GUID in lower case.
    #[error(
        "{field}: {value:?} is not a GUID in lower case; copy it from the app registration's overview page in Entra"
    )]
    Guid {
        /// The field's path in the file.
        field: &'static str,
        /// The text that stands there.
        value: String,
    },
    /// A resource of Microsoft's own, as if it were the server's.
    #[error(
        "{field}: {value:?} is a resource of Microsoft's own, and tokens for it belong to somebody else; name the client id or App ID URI of the server's own app registration"
    )]
    MicrosoftsOwn {
        /// The field's path in the file.
        field: &'static str,
        /// The text that stands there.
        value: String,
    },
    /// `publicUrl` and `path` contradict each other.
    #[error("publicUrl: {public_url:?} is not https://host{path}; both are derived from spec.exposure")]
    PublicUrl {
        /// The value of `publicUrl`.
        public_url: String,
        /// The value of `path`.
        path: String,
    },
    /// An origin is not written as browsers send it, or is not encrypted.
    #[error(
        "allowedOrigins: {value:?} is no origin that may call; write https://host[:port], in lower case and without a default port, or http://localhost:port"
    )]
    Origin {
        /// The text that stands there.
        value: String,
    },
    /// A list that must not be empty is.
    #[error("{field}: must name at least one entry; an empty list would leave nobody or nothing to serve")]
    Empty {
        /// The field's path in the file.
        field: &'static str,
    },
    /// A rate that lets nobody in.
    #[error("rateLimit.perUser: requests and perSeconds are at least 1")]
    Rate,
    /// An authorization server whose URL nobody knows.
    #[error(
        "authorizationServer: needs publicUrl, which is its issuer; expose the server, or leave the authorization server out"
    )]
    NoIssuer,
    /// A value of the authorization server that cannot be used.
    #[error("{field}: {value:?} cannot be used; {next}")]
    AuthorizationServer {
        /// The field's path in the file.
        field: &'static str,
        /// The text that stands there.
        value: String,
        /// The next step.
        next: &'static str,
    },
    /// A value of the backend that cannot be used.
    #[error("{field}: {value:?} cannot be used; {next}")]
    Backend {
        /// The field's path in the file.
        field: &'static str,
        /// The text that stands there.
        value: String,
        /// The next step.
        next: &'static str,
    },
    /// Built-in tools beside a backend.
    #[error("graph.tools: a server with a backend offers no built-in tools; leave the list empty")]
    ToolsBesideBackend,
    /// A tool's name is not built in.
    #[error("graph.tools: {name:?} is no built-in tool of this version")]
    UnknownTool {
        /// The name.
        name: String,
    },
}

impl ServerConfiguration {
    /// Refuses contradictions that the types cannot exclude, naming the field.
    pub fn validate(&self) -> Result<(), ConfigurationError> {
        guid("entra.tenantId", &self.entra.tenant_id)?;
        guid("entra.clientId", &self.entra.client_id)?;
        not_microsofts("entra.clientId", &self.entra.client_id)?;
        for audience in &self.entra.audiences {
            not_microsofts("entra.audiences", audience)?;
        }
        address("entra.authority", &self.entra.authority)?;
        address("graph.baseUrl", &self.graph.base_url)?;
        if let Some(public_url) = &self.public_url {
            let host = public_url.strip_prefix("https://").and_then(|rest| rest.strip_suffix(self.path.as_str()));
            if !host.is_some_and(|host| !host.is_empty() && !host.contains('/')) {
                return Err(ConfigurationError::PublicUrl { public_url: public_url.clone(), path: self.path.clone() });
            }
        }
        for (field, list) in
            [("entra.requiredScopes", &self.entra.required_scopes), ("graph.scopes", &self.graph.scopes)]
        {
            if list.is_empty() {
                return Err(ConfigurationError::Empty { field });
            }
        }
        if let Some(value) = self.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(ConfigurationError::Origin { value: value.clone() });
        }
        for client_id in &self.entra.allowed_clients {
            guid("entra.allowedClients", client_id)?;
        }
        if self.entra.token_versions.is_empty() {
            return Err(ConfigurationError::Empty { field: "entra.tokenVersions" });
        }
        let Rate { requests, per_seconds } = self.rate_limit.per_user;
        if requests == 0 || per_seconds == 0 {
            return Err(ConfigurationError::Rate);
        }
        if let Some(authorization_server) = &self.authorization_server {
            if self.public_url.is_none() {
                return Err(ConfigurationError::NoIssuer);
            }
            authorization_server.validate(&self.graph.scopes)?;
        }
        if let Some(backend) = &self.backend {
            backend.validate(&self.entra, self.public_url.as_deref())?;
            if !self.graph.tools.is_empty() {
                return Err(ConfigurationError::ToolsBesideBackend);
            }
        }
        match self.graph.tools.iter().find(|name| crate::built_in_tool(name).is_none()) {
            Some(name) => Err(ConfigurationError::UnknownTool { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// The scopes that a client asks of Entra for this server, fully qualified.
    pub fn qualified_scopes(&self) -> Vec<String> {
        self.entra.required_scopes.iter().map(|scope| self.entra.qualified_scope(scope)).collect()
    }
}

impl EntraConfiguration {
    /// This scope of the server as a client asks Entra for it. A bare scope would be taken for one of Microsoft Graph
    /// (AADSTS650053), and the App ID URI may be any. A client that shares the server's app registration gets no token
    /// for it by any other name than the client id (AADSTS90009).
    pub fn qualified_scope(&self, scope: &str) -> String {
        format!("{}/{scope}", self.client_id)
    }
}

fn is_origin(value: &str) -> bool {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(ORIGIN_PATTERN).ok());
    let default_port = if value.starts_with("https:") { ":443" } else { ":80" };
    PATTERN.as_ref().is_some_and(|pattern| pattern.is_match(value)) && !value.ends_with(default_port)
}

fn address(field: &'static str, value: &str) -> Result<(), ConfigurationError> {
    match value.strip_prefix("https://") {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => Ok(()),
        _ => Err(ConfigurationError::Address { field, value: value.to_owned() }),
    }
}

fn not_microsofts(field: &'static str, value: &str) -> Result<(), ConfigurationError> {
    match is_microsofts_own(value) {
        true => Err(ConfigurationError::MicrosoftsOwn { field, value: value.to_owned() }),
        false => Ok(()),
    }
}

fn guid(field: &'static str, value: &str) -> Result<(), ConfigurationError> {
    match is_guid(value) {
        true => Ok(()),
        false => Err(ConfigurationError::Guid { field, value: value.to_owned() }),
    }
}
