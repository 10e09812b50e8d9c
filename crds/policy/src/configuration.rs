//! Configuration file of the server. The operator writes it into a ConfigMap, and the server reads it once at start.
//!
//! It contains no paths and no secrets. File paths are arguments of the program. The only credential is the service
//! account token in the file that `AZURE_FEDERATED_TOKEN_FILE` names.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use ipnet::IpNet;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AuthorizationServerConfiguration, BackendConfiguration, is_microsofts_own, registration::is_guid};

/// Key of the configuration file in its ConfigMap, and its file name.
pub const CONFIGURATION_KEY: &str = "config.yaml";

/// Pattern of an origin, as browsers send it. The schema of McpServer uses the same pattern.
pub const ORIGIN_PATTERN: &str =
    r"^(https://[a-z0-9-]+(\.[a-z0-9-]+)*|http://(localhost|127\.0\.0\.1|\[::1\]))(:[1-9][0-9]{0,4})?$";

/// Configuration file of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerConfiguration {
    /// Name of the McpServer, which audit lines and messages show.
    pub server: ServerReference,
    /// URL that clients connect to, `https://host/path`. It determines the `resource` of the protected resource
    /// metadata (RFC 9728) and the accepted `Host`. Absent if the server can be reached only inside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// Path of the MCP endpoint, with a leading slash. Must match the path of `publicUrl`.
    pub path: String,
    /// Identity of the server in Entra, and the tokens that it accepts.
    pub entra: EntraConfiguration,
    /// Access of the built-in tools to Microsoft Graph. A server with a backend uses Graph only to look up groups.
    pub graph: GraphConfiguration,
    /// Another MCP server, whose tools are offered instead of the built-in tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendConfiguration>,
    /// Interval between probes of the federated credential.
    pub probe: ProbeConfiguration,
    /// Limits on the number of requests of each caller.
    #[serde(default)]
    pub rate_limit: RateLimitConfiguration,
    /// Optional settings of the audit log.
    #[serde(default, skip_serializing_if = "AuditConfiguration::is_default")]
    pub audit: AuditConfiguration,
    /// Address ranges of trusted proxies in front of the server. `X-Forwarded-For` is used only in requests from these
    /// addresses, and only the entries that they added.
    #[schemars(with = "Vec<String>")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<IpNet>,
    /// Origins of web pages that may call the server from a browser. The origin of `publicUrl` is always allowed. Each
    /// is `https://host[:port]`, or `http` with `localhost`, `127.0.0.1` or `[::1]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// Authorization server for clients that cannot sign in to Entra themselves. Requires `publicUrl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_server: Option<AuthorizationServerConfiguration>,
}

/// Name of an McpServer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerReference {
    /// Namespace of the McpServer.
    pub namespace: String,
    /// Name of the McpServer.
    pub name: String,
}

/// Identity of the server in Entra, and the tokens that it accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntraConfiguration {
    /// Id of the tenant, a GUID in lower case.
    pub tenant_id: String,
    /// Client id of the server's app registration, a GUID in lower case. It is the audience of user tokens and the
    /// client in the on-behalf-of exchange.
    pub client_id: String,
    /// Base address of the authority. Must be https, without a path or trailing slash.
    pub authority: String,
    /// Additional audiences that are accepted. `clientId` and `api://<clientId>` are always accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// Scopes of the app registration, as in `scp`. A user token must contain at least one of them.
    pub required_scopes: Vec<String>,
    /// Client ids (`azp` or `appid`) of the applications whose tokens are accepted, GUIDs in lower case. If empty,
    /// every client that Entra issues a token for is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_clients: Vec<String>,
    /// Versions of access tokens that are accepted. Defaults to `V2`.
    #[serde(default = "TokenVersion::by_default")]
    pub token_versions: BTreeSet<TokenVersion>,
    /// Source of a user's groups. Defaults to `Resolve`.
    #[serde(default)]
    pub groups: GroupsSource,
}

/// Version of Entra's access tokens. It follows `api.requestedAccessTokenVersion` of the server's app registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TokenVersion {
    /// Version 1, issued by `https://sts.windows.net/<tenant>/`.
    V1,
    /// Version 2, issued by `<authority>/<tenant>/v2.0`.
    V2,
}

impl TokenVersion {
    /// Returns the default versions.
    pub fn by_default() -> BTreeSet<Self> {
        BTreeSet::from([Self::V2])
    }
}

/// Source of a user's groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GroupsSource {
    /// The token. If its groups claim is absent or was replaced because of too many groups, the server asks Microsoft
    /// Graph about the groups that the policy names.
    #[default]
    Resolve,
    /// The token alone. The app registration must emit all relevant groups, and an absent claim means no groups. Groups
    /// that did not fit into the token stay unknown.
    InToken,
}

/// Access of the built-in tools to Microsoft Graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GraphConfiguration {
    /// Base address of Microsoft Graph. Must be https, without a version or trailing slash.
    pub base_url: String,
    /// Delegated permissions that the on-behalf-of exchange requests, such as `User.Read`.
    pub scopes: Vec<String>,
    /// Names of the built-in tools that this server offers. Patterns are not allowed.
    pub tools: Vec<String>,
    /// Widest access to Microsoft Graph. Defaults to `OnBehalfOf`.
    #[serde(default)]
    pub access: GraphAccess,
}

/// Access to Microsoft Graph, the narrowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum GraphAccess {
    /// Access as the signed-in user.
    #[default]
    OnBehalfOf,
    /// Access as the application itself, with its tenant-wide permissions.
    Application,
}

impl GraphAccess {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Limits on the number of requests of each caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitConfiguration {
    /// Limit for each caller in each pod. A caller is a user, or an application that calls without a user. Defaults to
    /// 120 requests in 60 seconds.
    pub per_user: Rate,
}

/// Number of requests that are allowed in a period. A caller may send all of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// Number of requests that are allowed in the period, at least 1.
    pub requests: u32,
    /// Length of the period in seconds, at least 1.
    pub per_seconds: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { requests: 120, per_seconds: 60 }
    }
}

/// Optional settings of the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditConfiguration {
    /// Adds the hash of the previous line to each line, so that a changed or removed line can be detected. Defaults to
    /// false.
    #[serde(default)]
    pub hash_chain: bool,
}

impl AuditConfiguration {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Interval between probes of the federated credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeConfiguration {
    /// Seconds between probes while the exchange succeeds. After a failure, the first retry comes after ten seconds or
    /// this interval, whichever is shorter. The delay then doubles up to one minute, since Entra throttles.
    pub interval_seconds: u32,
}

/// Error of a configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// An address is not `https://host[:port]`.
    #[error(
        "{field}: {value:?} is not an https address without path or trailing slash; correct it in the McpServer or the configuration file"
    )]
    Address {
        /// Path of the field in the file.
        field: &'static str,
        /// Value of the field.
        value: String,
    },
    /// A value is not a GUID in lower case.
    #[error(
        "{field}: {value:?} is not a GUID in lower case; copy it from the app registration's overview page in Entra"
    )]
    Guid {
        /// Path of the field in the file.
        field: &'static str,
        /// Value of the field.
        value: String,
    },
    /// An audience or client id of the server is a resource of Microsoft.
    #[error(
        "{field}: {value:?} is a resource of Microsoft, whose tokens are not issued for this server; use the client id or App ID URI of the server's own app registration"
    )]
    MicrosoftsOwn {
        /// Path of the field in the file.
        field: &'static str,
        /// Value of the field.
        value: String,
    },
    /// `publicUrl` and `path` do not match.
    #[error("publicUrl: {public_url:?} is not https://host{path}; both are derived from spec.exposure")]
    PublicUrl {
        /// Value of `publicUrl`.
        public_url: String,
        /// Value of `path`.
        path: String,
    },
    /// An origin is not written as browsers send it, or is not encrypted.
    #[error(
        "allowedOrigins: {value:?} is not a valid origin; write https://host[:port] in lower case and without a default port, or http://localhost:port"
    )]
    Origin {
        /// Value of the field.
        value: String,
    },
    /// A required list is empty.
    #[error("{field}: must have at least one entry")]
    Empty {
        /// Path of the field in the file.
        field: &'static str,
    },
    /// A rate allows no requests.
    #[error("rateLimit.perUser: requests and perSeconds must be at least 1")]
    Rate,
    /// An authorization server has no public URL.
    #[error(
        "authorizationServer: requires publicUrl, which is its issuer; expose the server, or remove authorizationServer"
    )]
    NoIssuer,
    /// A value of the authorization server cannot be used.
    #[error("{field}: {value:?} cannot be used; {next}")]
    AuthorizationServer {
        /// Path of the field in the file.
        field: &'static str,
        /// Value of the field.
        value: String,
        /// Next step.
        next: &'static str,
    },
    /// A value of the backend cannot be used.
    #[error("{field}: {value:?} cannot be used; {next}")]
    Backend {
        /// Path of the field in the file.
        field: &'static str,
        /// Value of the field.
        value: String,
        /// Next step.
        next: &'static str,
    },
    /// Built-in tools are listed together with a backend.
    #[error("graph.tools: must be empty with a backend, since such a server offers no built-in tools")]
    ToolsBesideBackend,
    /// A name is not that of a built-in tool.
    #[error("graph.tools: {name:?} is not a built-in tool of this version")]
    UnknownTool {
        /// Name of the tool.
        name: String,
    },
}

impl ServerConfiguration {
    /// Returns an error that names the field if values contradict each other.
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

    /// Returns the scopes that a client requests from Entra for this server, fully qualified.
    pub fn qualified_scopes(&self) -> Vec<String> {
        self.entra.required_scopes.iter().map(|scope| self.entra.qualified_scope(scope)).collect()
    }
}

impl EntraConfiguration {
    /// Returns a scope of the server as a client requests it from Entra. Entra takes a bare scope for one of Microsoft
    /// Graph (AADSTS650053), and the App ID URI can be arbitrary. A client that shares the server's app registration
    /// must use the client id (AADSTS90009).
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
