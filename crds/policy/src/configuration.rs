//! The server's configuration file, which the operator writes into a ConfigMap and the server reads once at start.
//!
//! It holds no paths and no secrets: where files lie is an argument of the program, and the only credential is the
//! service account token that `AZURE_FEDERATED_TOKEN_FILE` names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The key of the configuration file in its ConfigMap, and its file name.
pub const CONFIGURATION_KEY: &str = "config.yaml";

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
    /// Whose tokens are accepted, and who the server is to Entra.
    pub entra: EntraConfiguration,
    /// What the built-in tools may ask of Microsoft Graph.
    pub graph: GraphConfiguration,
    /// How often the server tries its federated credential.
    pub probe: ProbeConfiguration,
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

/// Whose tokens are accepted, and who the server is to Entra.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EntraConfiguration {
    /// The tenant's id, a GUID in lower case.
    pub tenant_id: String,
    /// The server's app registration, a GUID in lower case: audience of user tokens, client of the on-behalf-of exchange.
    pub client_id: String,
    /// Base address of the authority, https, without a path or trailing slash.
    pub authority: String,
    /// Audiences accepted besides `clientId` and `api://<clientId>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// A user token carries at least one of these scopes (bare names, as in `scp`).
    pub required_scopes: Vec<String>,
}

/// What the built-in tools may ask of Microsoft Graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GraphConfiguration {
    /// Base address of Microsoft Graph, https, without a version or trailing slash.
    pub base_url: String,
    /// Delegated permissions asked for in the on-behalf-of exchange, as `User.Read`.
    pub scopes: Vec<String>,
    /// The built-in tools that this server offers: exact names, no patterns.
    pub tools: Vec<String>,
}

/// How often the server tries its federated credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeConfiguration {
    /// Seconds between probes while the exchange works. While it fails, the first retry comes after ten seconds or
    /// after this interval, whichever is shorter, and the pause doubles up to a minute: Entra throttles.
    pub interval_seconds: u32,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// An address is not `https://host[:port]`.
    #[error(
        "{field}: {value:?} is not an https address without path or trailing slash; correct it in the McpServer or the configuration file"
    )]
    Address {
        /// The field's path in the file.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// A value is not a GUID in lower case.
    #[error(
        "{field}: {value:?} is not a GUID in lower case; copy it from the app registration's overview page in Entra"
    )]
    Guid {
        /// The field's path in the file.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// `publicUrl` and `path` contradict each other.
    #[error("publicUrl: {public_url:?} is not https://host{path}; both are derived from spec.exposure")]
    PublicUrl {
        /// What stands in `publicUrl`.
        public_url: String,
        /// What stands in `path`.
        path: String,
    },
    /// A list that must not be empty is.
    #[error("{field}: must name at least one entry; an empty list would leave nobody or nothing to serve")]
    Empty {
        /// The field's path in the file.
        field: &'static str,
    },
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
        match self.graph.tools.iter().find(|name| crate::built_in_tool(name).is_none()) {
            Some(name) => Err(ConfigurationError::UnknownTool { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// The scopes that a client asks of Entra for this server, fully qualified: a bare scope would be taken for one
    /// of Microsoft Graph (AADSTS650053).
    pub fn qualified_scopes(&self) -> Vec<String> {
        let client_id = &self.entra.client_id;
        self.entra.required_scopes.iter().map(|scope| format!("api://{client_id}/{scope}")).collect()
    }
}

fn address(field: &'static str, value: &str) -> Result<(), ConfigurationError> {
    match value.strip_prefix("https://") {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => Ok(()),
        _ => Err(ConfigurationError::Address { field, value: value.to_owned() }),
    }
}

fn guid(field: &'static str, value: &str) -> Result<(), ConfigurationError> {
    let groups: Vec<&str> = value.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let digits = groups.iter().all(|group| group.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    if lengths == [8, 4, 4, 4, 12] && digits {
        return Ok(());
    }
    Err(ConfigurationError::Guid { field, value: value.to_owned() })
}
