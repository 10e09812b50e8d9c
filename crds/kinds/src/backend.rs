//! `spec.backend`: another MCP server, which runs in each pod and is reached through the companion alone.

use std::collections::BTreeMap;

use kube::{KubeSchema, core::Rule};
use mcp_entra_policy::{BACKEND_PATH_PATTERN, BACKEND_SCOPE_PATTERN, BackendSessions, DIGEST_PATTERN};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::Resources;

/// Addresses of the metadata services of clouds, as ranges: whoever reaches one may get the node's own credentials. No
/// backend reaches them.
pub const METADATA_SERVICES: [&str; 5] =
    ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::254/128", "fd20:ce::254/128"];

/// The most tools in a pin.
pub const MOST_PINS: usize = 256;

/// Another MCP server. It runs in a container of its own beside the companion, which alone reaches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.transport != 'Stdio' || (has(self.command) && self.command.size() > 0)",
    "with transport: Stdio, command names the program: the image's own entry point is not known to Kubernetes; copy it from the image"
))]
#[x_kube(validation = (
    "self.transport != 'Stdio' || (!has(self.port) && !has(self.path))",
    "port and path go with transport: StreamableHttp; remove them, or set that transport"
))]
#[x_kube(validation = (
    "self.transport != 'StreamableHttp' || has(self.port)",
    "with transport: StreamableHttp, port names the port that the backend listens on"
))]
#[x_kube(validation = (
    "self.sessions != 'Shared' || !has(self.identity) || has(self.identity.none)",
    "sessions: Shared goes with identity.none, since a session that callers share is begun by one of them; use PerPrincipal"
))]
#[x_kube(validation = (
    "!has(self.identity) || !has(self.identity.onBehalfOf) || self.transport == 'StreamableHttp'",
    "identity.onBehalfOf goes with transport: StreamableHttp, since a process has no place for a token; use identity.assertion"
))]
pub struct Backend {
    /// Image of the backend. Only those that the operator's own configuration allows.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\s]+$"))]
    pub image: String,
    /// The way that the backend speaks MCP.
    pub transport: Transport,
    /// The program and its first arguments, instead of the image's entry point. `Stdio` takes it; a variable is written
    /// `$(NAME)`.
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments of the program.
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The port that the backend listens on, best on the loopback address alone. With `StreamableHttp` only.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (
        "self != 8080 && self != 8081",
        "8080 and 8081 are the companion's own ports in the same pod; let the backend listen on another"
    ))]
    pub port: Option<i32>,
    /// Path of the backend's MCP endpoint. Absent: `/mcp`. With `StreamableHttp` only.
    #[schemars(length(min = 1, max = 128), regex(pattern = BACKEND_PATH_PATTERN))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Environment variables of the backend. `HOME` is the first of `writableDirs` where none is named.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "self.all(variable, !(variable.name in ['AZURE_CLIENT_SECRET', 'AZURE_PASSWORD', 'AZURE_FEDERATED_TOKEN_FILE']) && !variable.name.startsWith('AZURE_CLIENT_CERTIFICATE'))",
        "AZURE_CLIENT_SECRET, AZURE_PASSWORD, AZURE_CLIENT_CERTIFICATE_* and AZURE_FEDERATED_TOKEN_FILE are refused: a backend has no credential of Entra; use identity.onBehalfOf to reach a resource as the user"
    ))]
    pub env: Vec<BackendVariable>,
    /// Requests and limits of the backend's container. A resource that is named here, in either, is left wholly to what
    /// stands here; another keeps the operator's defaults (requests of 50m CPU and 128Mi memory, limit of 512Mi memory).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Id of the user that the backend runs as, where its image needs another than 65532. Never root.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<i64>,
    /// Folders that the backend may write to, of up to 256Mi each and empty at the start of a pod. The rest of its file
    /// system is read-only.
    #[schemars(length(max = 8), inner(length(min = 2, max = 128), regex(pattern = r"^(/[A-Za-z0-9_.-]+)+$")))]
    #[serde(default = "default_writable_dirs")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "self.all(folder, !folder.matches('/[.][.]?(/|$)') && !folder.matches('^/(proc|sys|dev|run/mcp-entra)(/|$)'))",
        "a folder is an absolute path without . and .., outside of /proc, /sys, /dev and /run/mcp-entra"
    ))]
    pub writable_dirs: Vec<String>,
    /// The identity of the user that the backend is told. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<BackendIdentity>,
    /// Sharing of the backend's sessions and processes among callers.
    #[serde(default)]
    pub sessions: BackendSessions,
    /// Digests of the tools' definitions, by name, as `mcp-entra-operator pin` prints them. Present: a tool of another name
    /// or definition is not offered, and `*` in a mapping means the tools that are.
    #[schemars(schema_with = "pin")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (
        "self.all(name, name.size() >= 1 && name.size() <= 128)",
        "a tool's name has 1 to 128 characters"
    ))]
    pub pin: Option<BTreeMap<String, String>>,
    /// Addresses and ports that the pods reach for the backend, besides those that they reach anyway.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<BackendEgress>,
}

impl Backend {
    /// Path of the MCP endpoint where none is named.
    pub const DEFAULT_PATH: &str = "/mcp";
}

fn default_writable_dirs() -> Vec<String> {
    vec!["/tmp".to_owned()]
}

fn pin(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": MOST_PINS,
        "additionalProperties": {"type": "string", "maxLength": 64, "pattern": DIGEST_PATTERN},
    })
}

/// A way of speaking MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// Lines on the standard input and output of a process, which the companion has started for a caller.
    Stdio,
    /// Streamable HTTP on a port.
    StreamableHttp,
}

/// An environment variable of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.value) || !has(self.valueFrom)", "value or valueFrom, not both"))]
pub struct BackendVariable {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[-._a-zA-Z][-._a-zA-Z0-9]*$"))]
    pub name: String,
    /// Its value. No secret: everybody who reads McpServers reads it.
    #[schemars(length(max = 4096))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The place of a secret value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<BackendVariableSource>,
}

/// The place of a secret value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendVariableSource {
    /// A key of a Secret of this namespace. The operator never reads it.
    pub secret_key_ref: BackendSecretKey,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendSecretKey {
    /// Name of the Secret: the McpServer's name and `-backend`, or that, a dot and more. By that name whoever makes it says
    /// that this server's backend may read it.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?-backend(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// The identity of the user that a backend is told: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.none), has(self.assertion), has(self.onBehalfOf)].filter(given, given).size() == 1",
    "exactly one of none, assertion and onBehalfOf"
))]
pub struct BackendIdentity {
    /// None: the backend does not learn who calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<NoIdentity>,
    /// A signed statement of the companion about the caller, of one minute, for this backend alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Assertion>,
    /// A token of Entra for one resource, on behalf of the user. Needs `StreamableHttp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOf>,
}

/// No identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NoIdentity {}

/// A signed statement about the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assertion {}

/// A token for a resource, on behalf of the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnBehalfOf {
    /// One scope with its resource, as `api://application/scope`. Only of resources that the operator's own configuration
    /// allows, and never of this server's.
    #[schemars(length(min = 1, max = 256), regex(pattern = BACKEND_SCOPE_PATTERN))]
    pub scope: String,
}

/// Addresses and ports that the pods reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendEgress {
    /// A range of addresses such as `10.2.0.0/16`. The metadata services of clouds in it are left out.
    #[schemars(length(min = 1, max = 43))]
    #[x_kube(validation = ("isCIDR(self) && cidr(self) == cidr(self).masked()", "a range of addresses such as 10.2.0.0/16, or of one as 10.2.3.4/32"))]
    #[x_kube(validation = no_metadata_service())]
    pub cidr: String,
    /// TCP ports.
    #[schemars(length(min = 1, max = 16), inner(range(min = 1, max = 65535)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ports: Vec<i32>,
}

fn no_metadata_service() -> Rule {
    let services = METADATA_SERVICES.map(|service| format!("'{service}'")).join(", ");
    Rule::new(format!("!isCIDR(self) || [{services}].all(service, !cidr(service).containsCIDR(self))")).message(
        "no backend reaches the metadata service of a cloud, whose answers are the node's own credentials; remove it",
    )
}

/// The backend as the ready pods find it. What it says of itself is not to be trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendSummary {
    /// Its name, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The revision of the protocol that it speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Number of its tools, with those that are hidden.
    #[serde(default)]
    pub tools: i32,
    /// Number of its prompts.
    #[serde(default)]
    pub prompts: i32,
    /// Number of its resources and templates.
    #[serde(default)]
    pub resources: i32,
    /// Digest of the definitions of all its tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Tools that are not offered, since they are not as `spec.backend.pin` has them: the first 32.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<String>,
    /// Tools that no mapping grants to anybody: the first 32.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ungranted: Vec<String>,
}
