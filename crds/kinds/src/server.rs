//! `McpServer`: one MCP server behind Entra, as an application team asks for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use mcp_entra_policy::Cloud;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An MCP server behind Microsoft Entra ID, reaching Microsoft Graph as the signed-in user without a client secret.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mcp-entra.dev",
    version = "v1alpha1",
    kind = "McpServer",
    plural = "mcpservers",
    shortname = "mcps",
    category = "mcp-entra",
    namespaced,
    status = "McpServerStatus",
    derive = "PartialEq",
    doc = "An MCP server behind Microsoft Entra ID, reaching Microsoft Graph as the signed-in user without a client secret.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    ),
    validation = (
        "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name: at most 40 characters, lower-case letters, digits and hyphens, starting with a letter (RFC 1035): names of children are derived from it"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct McpServerSpec {
    /// Who the server is to Microsoft Entra ID, and whose tokens it accepts.
    pub entra: Entra,
    /// The built-in tools and what they may ask of Microsoft Graph.
    pub graph: Graph,
    /// How clients outside the cluster reach the server. Absent: it is reachable inside the cluster only, and still
    /// authenticates every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<Exposure>,
    /// Number of pods. Absent means one.
    #[schemars(range(min = 0, max = 100))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// What is added to the pods that the operator builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// Who the server is to Microsoft Entra ID, and whose tokens it accepts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entra {
    /// Id of the tenant: a GUID in lower case.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    pub tenant_id: String,
    /// Id of the server's app registration, a GUID in lower case: the audience of user tokens and the client of the
    /// on-behalf-of exchange.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    pub client_id: String,
    /// The cloud of Microsoft Entra ID; authority, Graph and the audience of the federated credential follow from it.
    #[serde(default)]
    pub cloud: Cloud,
    /// Audiences accepted besides `clientId` and `api://<clientId>`.
    #[schemars(length(max = 8), inner(length(min = 1, max = 256)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(validation = (
        "self.all(audience, !(audience in ['00000003-0000-0000-c000-000000000000', 'https://graph.microsoft.com', 'https://graph.microsoft.us', 'https://dod-graph.microsoft.us', 'https://microsoftgraph.chinacloudapi.cn', 'https://management.azure.com', 'https://vault.azure.net']))",
        "a resource of Microsoft's own is no audience of this server: tokens for it belong to somebody else"
    ))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,
    /// A user token carries at least one of these scopes of the app registration.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 120), regex(pattern = "^[A-Za-z0-9._:-]+$")))]
    #[serde(default = "default_required_scopes")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub required_scopes: Vec<String>,
    /// How the pod's service account token is projected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<Federation>,
    /// Other addresses than the cloud's. Refused unless the operator's own configuration allows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// CA certificates for outgoing TLS, besides the image's. Refused unless the operator's own configuration allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_bundle: Option<TrustBundle>,
}

fn default_required_scopes() -> Vec<String> {
    vec!["mcp.access".to_owned()]
}

/// How the pod's service account token is projected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Federation {
    /// Life of the projected token in seconds; it is renewed at 80 % of it.
    #[schemars(range(min = 600, max = 86400))]
    #[serde(default = "default_token_expiration_seconds")]
    pub token_expiration_seconds: i64,
}

impl Default for Federation {
    fn default() -> Self {
        Self { token_expiration_seconds: default_token_expiration_seconds() }
    }
}

fn default_token_expiration_seconds() -> i64 {
    3600
}

/// Other addresses than the cloud's, both together: a token of one cloud is nothing to another's Graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Base address of the authority: https, no path.
    #[schemars(regex(pattern = "^https://[A-Za-z0-9.-]+(:[0-9]+)?$"), length(max = 256))]
    pub authority: String,
    /// Base address of Microsoft Graph: https, no path.
    #[schemars(regex(pattern = "^https://[A-Za-z0-9.-]+(:[0-9]+)?$"), length(max = 256))]
    pub graph: String,
}

/// A ConfigMap of the same namespace with CA certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustBundle {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key with the certificates in PEM.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    #[serde(default = "default_trust_bundle_key")]
    pub key: String,
}

fn default_trust_bundle_key() -> String {
    "ca.crt".to_owned()
}

/// The built-in tools and what they may ask of Microsoft Graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Graph {
    /// Delegated permissions, as `User.Read`; an administrator consents to them in Entra.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 1, max = 120), regex(pattern = r"^[A-Za-z]+(\.[A-Za-z-]+)+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
    /// Which built-in tools there are: names, or prefixes with a trailing `*`. What a caller may use of them is for
    /// mappings to say.
    #[schemars(
        length(min = 1, max = 128),
        inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.-]*\*?$"))
    )]
    #[serde(default = "default_tools")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Vec<String>,
}

fn default_tools() -> Vec<String> {
    vec!["*".to_owned()]
}

/// How clients outside the cluster reach the server. There is no exposure without TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// Host name that clients connect to.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub host: String,
    /// Path of the MCP endpoint on that host.
    #[schemars(length(min = 2, max = 128), regex(pattern = "^(/[A-Za-z0-9_~-]+)+$"))]
    #[serde(default = "default_path")]
    pub path: String,
    /// Exposure by an Ingress.
    pub ingress: IngressExposure,
    /// Where the certificate comes from.
    pub tls: Tls,
}

/// The path of the MCP endpoint where `spec.exposure` names none, and where nothing is exposed.
pub const DEFAULT_PATH: &str = "/mcp";

fn default_path() -> String {
    DEFAULT_PATH.to_owned()
}

/// An Ingress of any class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressExposure {
    /// Class of the Ingress. Absent: the cluster's default class.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// A Secret of type `kubernetes.io/tls` in the server's namespace. The operator never reads it.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}

/// What is added to the pods that the operator builds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Environment variables for the server's container, such as `HTTPS_PROXY`.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "self.all(variable, !(variable.name in ['AZURE_CLIENT_SECRET', 'AZURE_PASSWORD']) && !variable.name.startsWith('AZURE_CLIENT_CERTIFICATE'))",
        "AZURE_CLIENT_SECRET, AZURE_PASSWORD and AZURE_CLIENT_CERTIFICATE_* are refused: the only credential is the pod's service account token; create a federated credential in Entra instead"
    ))]
    #[x_kube(validation = (
        "self.all(variable, variable.name in ['HTTPS_PROXY', 'https_proxy', 'NO_PROXY', 'no_proxy', 'RUST_LOG', 'TZ'])",
        "may name HTTPS_PROXY, NO_PROXY (or both in lower case), RUST_LOG and TZ; others could change what the server trusts or runs"
    ))]
    pub env: Vec<EnvironmentVariable>,
}

/// An environment variable with a plain value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentVariable {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[-._a-zA-Z][-._a-zA-Z0-9]*$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 4096))]
    #[serde(default)]
    pub value: String,
}

/// What is so now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpServerStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What clients connect to. Absent while nothing is exposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Number of pods.
    #[serde(default)]
    pub replicas: i32,
    /// Number of pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// What the federated credential in Entra must say, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<FederatedCredential>,
    /// The policy as compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySummary>,
    /// What is so now, one entry a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What the federated credential in Entra must say, exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederatedCredential {
    /// The cluster's issuer, read from a token that a pod really got. Absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub subject: String,
    /// The audience of the projected token.
    pub audience: String,
}

/// The policy as compiled, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySummary {
    /// Revision of the compiled policy.
    pub revision: String,
    /// Number of mappings that bind this server.
    pub mappings: i32,
    /// Number of distinct app roles that are granted something.
    pub roles: i32,
    /// Number of distinct tools that are granted to somebody.
    pub tools: i32,
}
