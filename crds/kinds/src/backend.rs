//! `spec.backend`: another MCP server in each pod, which only the companion can reach.

use std::collections::BTreeMap;

use kube::{KubeSchema, core::Rule};
use mcp_entra_policy::{BACKEND_PATH_PATTERN, BACKEND_SCOPE_PATTERN, BackendSessions, DIGEST_PATTERN};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::Resources;

/// Address ranges of the metadata services of clouds. A metadata service may return the node's credentials, so no
/// backend may reach it.
pub const METADATA_SERVICES: [&str; 5] =
    ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::254/128", "fd20:ce::254/128"];

/// Maximum number of tools in a pin.
pub const MOST_PINS: usize = 256;

/// Another MCP server. It runs in its own container beside the companion. Only the companion can reach it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.transport != 'Stdio' || (has(self.command) && self.command.size() > 0)",
    "command is required with transport: Stdio, since Kubernetes does not know the entry point of the image; copy it from the image"
))]
#[x_kube(validation = (
    "self.transport != 'Stdio' || (!has(self.port) && !has(self.path))",
    "port and path are allowed only with transport: StreamableHttp; remove them, or set that transport"
))]
#[x_kube(validation = (
    "self.transport != 'StreamableHttp' || has(self.port)",
    "port is required with transport: StreamableHttp"
))]
#[x_kube(validation = (
    "self.sessions != 'Shared' || !has(self.identity) || has(self.identity.none)",
    "sessions: Shared is allowed only with identity.none, since a shared session has the identity of its first caller; use PerPrincipal"
))]
#[x_kube(validation = (
    "!has(self.identity) || !has(self.identity.onBehalfOf) || self.transport == 'StreamableHttp'",
    "identity.onBehalfOf is allowed only with transport: StreamableHttp, since a process cannot receive tokens; use identity.assertion"
))]
pub struct Backend {
    /// Image of the backend. It must be allowed by the operator's configuration.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\s]+$"))]
    pub image: String,
    /// Transport of MCP: `Stdio` (a process that reads standard input) or `StreamableHttp` (a port).
    pub transport: Transport,
    /// Program and its first arguments, which replace the entry point of the image. Required with `Stdio`. `$(NAME)` is
    /// replaced by the value of an environment variable.
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments of the program, after those in `command`.
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// TCP port that the backend listens on, preferably only on the loopback address. Required with `StreamableHttp`,
    /// not allowed with `Stdio`. Must not be 8080 or 8081.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (
        "self != 8080 && self != 8081",
        "8080 and 8081 are ports of the companion in the same pod; use another port"
    ))]
    pub port: Option<i32>,
    /// Path of the backend's MCP endpoint. Allowed only with `StreamableHttp`. Defaults to `/mcp`.
    #[schemars(length(min = 1, max = 128), regex(pattern = BACKEND_PATH_PATTERN))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Environment variables of the backend. `HOME` defaults to the first of `writableDirs`.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "self.all(variable, !(variable.name in ['AZURE_CLIENT_SECRET', 'AZURE_PASSWORD', 'AZURE_FEDERATED_TOKEN_FILE']) && !variable.name.startsWith('AZURE_CLIENT_CERTIFICATE'))",
        "AZURE_CLIENT_SECRET, AZURE_PASSWORD, AZURE_CLIENT_CERTIFICATE_* and AZURE_FEDERATED_TOKEN_FILE are not allowed, since a backend has no credential in Entra; use identity.onBehalfOf to access a resource as the user"
    ))]
    pub env: Vec<BackendVariable>,
    /// Resource requests and limits of the backend's container. A resource that is set here, in `requests` or `limits`,
    /// gets none of the operator's defaults. The defaults are requests of 50m CPU and 128Mi memory, and a limit of
    /// 512Mi memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// User id of the backend's process. Must not be 0 (root) or 65532 (the companion). Defaults to 65533.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (
        "self != 65532",
        "65532 is the user of the companion in the same pod, whose ports a backend with that user could take; use another user, or remove the field"
    ))]
    pub run_as_user: Option<i64>,
    /// Folders that the backend may write to. Each is empty when a pod starts, and holds up to 256Mi. The rest of the
    /// file system is read-only. Must be absolute paths. At most 8. Defaults to `/tmp`.
    #[schemars(length(max = 8), inner(length(min = 2, max = 128), regex(pattern = r"^(/[A-Za-z0-9_.-]+)+$")))]
    #[serde(default = "default_writable_dirs")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "self.all(folder, !folder.matches('/[.][.]?(/|$)') && !folder.matches('^/(proc|sys|dev|run/mcp-entra)(/|$)'))",
        "a folder must be an absolute path without . and .., outside /proc, /sys, /dev and /run/mcp-entra"
    ))]
    pub writable_dirs: Vec<String>,
    /// Identity of the caller that the backend receives. If absent, it receives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<BackendIdentity>,
    /// Sharing of sessions: `PerPrincipal` (one session, or process, for each caller) or `Shared` (one for all callers
    /// of a pod). `Shared` requires that the backend receives no identity. Defaults to `PerPrincipal`.
    #[serde(default)]
    pub sessions: BackendSessions,
    /// Digests of the tool definitions by tool name, as printed by `mcp-entra-operator pin`. If set, the server hides
    /// each tool with another name or definition. A prefix with a trailing `*` in a grant then selects the remaining
    /// tools. At most 256.
    #[schemars(schema_with = "pin")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = (
        "self.all(name, name.size() >= 1 && name.size() <= 128)",
        "a tool name must have 1 to 128 characters"
    ))]
    pub pin: Option<BTreeMap<String, String>>,
    /// Additional addresses and ports that the pods may connect to, for the backend. At most 16.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<BackendEgress>,
}

impl Backend {
    /// Default path of the MCP endpoint.
    pub const DEFAULT_PATH: &str = "/mcp";
    /// User id of the companion. A backend must have another one, because the kernel lets programs of this user share
    /// the companion's ports.
    pub const COMPANION_USER: i64 = 65532;
    /// Default user id of the backend. No image has files of this user.
    pub const DEFAULT_USER: i64 = 65533;
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

/// Transport of MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// Standard input and output of a process, which the companion starts for a caller.
    Stdio,
    /// Streamable HTTP on a TCP port.
    StreamableHttp,
}

/// Environment variable of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.value) || !has(self.valueFrom)", "value and valueFrom must not both be set"))]
pub struct BackendVariable {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[-._a-zA-Z][-._a-zA-Z0-9]*$"))]
    pub name: String,
    /// Value of the variable. Must not be a secret, since everybody who may read McpServers can read it.
    #[schemars(length(max = 4096))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Source of a secret value. Must not be set together with `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<BackendVariableSource>,
}

/// Source of a secret value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendVariableSource {
    /// Key of a Secret of this namespace. The operator never reads the Secret.
    pub secret_key_ref: BackendSecretKey,
}

/// Reference to a key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!self.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?-[0-9a-f]{8}-oauth-[1-9][0-9]{0,6}$')",
    "a Secret with this name is a key of an authorization server, which no backend may read; use a Secret named after the McpServer with -backend at the end"
))]
pub struct BackendSecretKey {
    /// Name of the Secret: `<name of the McpServer>-backend`, optionally followed by a dot and a suffix. This name is the
    /// permission for this backend to read the Secret. Other names need the operator's `--allowed-backend-secret`.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Identity of the caller that a backend receives. Exactly one of `none`, `assertion` and `onBehalfOf` must be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.none), has(self.assertion), has(self.onBehalfOf)].filter(given, given).size() == 1",
    "exactly one of none, assertion and onBehalfOf must be set"
))]
pub struct BackendIdentity {
    /// No identity. The backend does not learn who calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<NoIdentity>,
    /// JSON Web Token about the caller, signed by the companion. It is valid for one minute and only for this backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Assertion>,
    /// Access token of Entra for one resource, on behalf of the user. Requires `transport: StreamableHttp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOf>,
}

/// No identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NoIdentity {}

/// Signed JSON Web Token about the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assertion {}

/// Access token for a resource, on behalf of the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnBehalfOf {
    /// Scope with its resource, such as `api://application/scope`. The resource must be allowed by the operator's
    /// configuration, and must not be that of this server.
    #[schemars(length(min = 1, max = 256), regex(pattern = BACKEND_SCOPE_PATTERN))]
    pub scope: String,
}

/// Range of addresses, and ports that the pods may connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendEgress {
    /// Range of addresses, such as `10.2.0.0/16`. The metadata services of clouds are always excluded.
    #[schemars(length(min = 1, max = 43))]
    #[x_kube(validation = ("isCIDR(self) && cidr(self) == cidr(self).masked()", "cidr must be a range of addresses such as 10.2.0.0/16, or a single address such as 10.2.3.4/32"))]
    #[x_kube(validation = no_metadata_service())]
    pub cidr: String,
    /// TCP ports, from 1 to 65535. At most 16.
    #[schemars(length(min = 1, max = 16), inner(range(min = 1, max = 65535)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ports: Vec<i32>,
}

fn no_metadata_service() -> Rule {
    let services = METADATA_SERVICES.map(|service| format!("'{service}'")).join(", ");
    Rule::new(format!("!isCIDR(self) || [{services}].all(service, !cidr(service).containsCIDR(self))"))
        .message("cidr must not be the metadata service of a cloud, which may return the node's credentials; remove it")
}

/// Backend as the ready pods observe it. Names and versions come from the backend itself and are not verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendSummary {
    /// Name that the backend reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Version that the backend reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Version of the MCP protocol that the backend uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Number of its tools, including hidden ones.
    #[serde(default)]
    pub tools: i32,
    /// Number of its prompts.
    #[serde(default)]
    pub prompts: i32,
    /// Number of its resources and resource templates.
    #[serde(default)]
    pub resources: i32,
    /// Digest of all its tool definitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Tools that the server hides, since they differ from `spec.backend.pin` or are not in it. The first 32.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<String>,
    /// Tools that no role mapping grants. The first 32.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ungranted: Vec<String>,
}
