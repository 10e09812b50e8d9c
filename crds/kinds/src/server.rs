//! `McpServer`: an MCP server behind Microsoft Entra ID.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use mcp_entra_policy::GraphAccess;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Audit, AuthorizationServer, Autoscaling, Backend, BackendSummary, Entra, Exposure, NetworkPolicy, PodTemplate,
    RateLimit,
};

/// MCP server behind Microsoft Entra ID. It offers built-in tools for Microsoft Graph, or the tools of another MCP
/// server. It needs no client secret.
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
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    doc = "MCP server behind Microsoft Entra ID. It offers built-in tools for Microsoft Graph, or the tools of another MCP server. It needs no client secret.",
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
        "metadata.name must have at most 40 characters: lower-case letters, digits and hyphens, starting with a letter (RFC 1035), since names of child objects are derived from it"
    ),
    validation = (
        "!has(self.spec.replicas) || !has(self.spec.autoscaling)",
        "spec.replicas and spec.autoscaling must not both be set, since an autoscaler sets the number of pods"
    ),
    validation = (
        "!has(self.spec.authorizationServer) || !has(self.spec.authorizationServer.sessionStore.valkey) || !has(self.spec.authorizationServer.sessionStore.valkey.passwordSecretRef) || self.spec.authorizationServer.sessionStore.valkey.passwordSecretRef.name == self.metadata.name + '-session-store'",
        "spec.authorizationServer.sessionStore.valkey.passwordSecretRef.name must be the McpServer's name followed by -session-store; this name permits the server to send the Secret's content to a session store"
    ),
    validation = (
        "!has(self.spec.authorizationServer) || has(self.spec.exposure)",
        "spec.authorizationServer requires spec.exposure, since the server's URL is its issuer"
    ),
    validation = (
        "!has(self.spec.authorizationServer) || !has(self.spec.authorizationServer.sessionStore.memory) || ((!has(self.spec.replicas) || self.spec.replicas <= 1) && (!has(self.spec.autoscaling) || self.spec.autoscaling.maxReplicas <= 1))",
        "spec.authorizationServer.sessionStore.memory allows only one pod; set spec.replicas or spec.autoscaling.maxReplicas to 1, or use sessionStore.valkey, which pods share"
    ),
    validation = (
        "!has(self.spec.authorizationServer) || !has(self.spec.authorizationServer.userConsentScopes) || self.spec.authorizationServer.userConsentScopes.all(scope, has(self.spec.graph) && scope in self.spec.graph.scopes)",
        "each of spec.authorizationServer.userConsentScopes must be in spec.graph.scopes, since users consent to permissions in Graph; without spec.graph, the list must be empty"
    ),
    validation = (
        "has(self.spec.graph) != has(self.spec.backend)",
        "exactly one of spec.graph and spec.backend must be set: a server offers the built-in tools, or those of another MCP server"
    ),
    validation = (
        "!has(self.spec.backend) || has(self.spec.networkPolicy)",
        "spec.backend requires spec.networkPolicy, which keeps other pods from the backend's ports; list the clients of the server in allowFrom"
    ),
    validation = (
        "!has(self.spec.backend) || !has(self.spec.autoscaling) || (has(self.spec.backend.resources) && ((has(self.spec.backend.resources.requests) && has(self.spec.backend.resources.requests.cpu)) || (has(self.spec.backend.resources.limits) && has(self.spec.backend.resources.limits.cpu))))",
        "spec.backend.resources.requests.cpu is required with spec.autoscaling, since the autoscaler compares CPU usage with requests"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct McpServerSpec {
    /// Identity of the server in Microsoft Entra ID, and the tokens that it accepts.
    pub entra: Entra,
    /// Built-in tools, and their permissions in Microsoft Graph. Exactly one of `graph` and `backend` must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// Another MCP server that runs behind this one. Only this server can reach it. Exactly one of `graph` and
    /// `backend` must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Box<Backend>>,
    /// Access from outside the cluster. If absent, the server can be reached only inside the cluster. It authenticates
    /// every request in both cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<Exposure>,
    /// Authorization server for MCP clients that cannot sign in to Entra themselves. Requires `exposure`. If absent,
    /// clients sign in to Entra directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_server: Option<AuthorizationServer>,
    /// Number of pods, from 0 to 100. Must not be set together with `autoscaling`. If both are absent, the operator
    /// creates the Deployment with one pod and does not change its number of replicas afterwards.
    #[schemars(range(min = 0, max = 100))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// HorizontalPodAutoscaler that sets the number of pods. Must not be set together with `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Limits on the number of requests of each caller. Defaults to 120 requests in 60 seconds for each caller in each
    /// pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Optional settings of the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// NetworkPolicy of the pods. Required with `backend`. If absent, the operator creates none, and other policies of
    /// the namespace apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicy>,
    /// Settings that are added to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<Box<PodTemplate>>,
    /// Image of the server. Defaults to the image that belongs to the operator's version. Another image must be allowed
    /// by the operator's configuration.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\s]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Stops the operator from changing the child objects. Changes to role mappings still take effect. Defaults to
    /// false.
    #[serde(default)]
    pub suspend: bool,
}

/// Built-in tools, and their permissions in Microsoft Graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Graph {
    /// Delegated permissions of Microsoft Graph, such as `User.Read`. An administrator grants consent to them in Entra.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 1, max = 120), regex(pattern = r"^[A-Za-z]+(\.[A-Za-z-]+)+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
    /// Names of built-in tools, or prefixes with a trailing `*`. A prefix never selects a tool that writes. If `access`
    /// is `OnBehalfOf`, `scopes` must cover the permissions of each tool: a prefix skips other tools, and the full name
    /// of such a tool is an error. Role mappings decide who may call a tool. Defaults to `*`.
    #[schemars(
        length(min = 1, max = 128),
        inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.-]*\*?$"))
    )]
    #[serde(default = "default_tools")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Vec<String>,
    /// Access to Microsoft Graph: `OnBehalfOf` (as the signed-in user) or `Application` (also as the application
    /// itself). `Application` allows calls from applications without a user. Calls of users still run on behalf of the
    /// user, unless the grant has `graph: Application`. Defaults to `OnBehalfOf`.
    #[serde(default)]
    pub access: GraphAccess,
}

fn default_tools() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Observed state of the McpServer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpServerStatus {
    /// Generation of the spec that this status describes. -1 until the first reconcile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version of mcp-entra-server in the ready pods. During a rollout, the oldest of their versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// URL of the MCP endpoint for clients. Absent without `spec.exposure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Redirect URI that the app registration needs on its platform "Web". Present only with
    /// `spec.authorizationServer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_uri: Option<String>,
    /// Number of pods.
    #[serde(default)]
    pub replicas: i32,
    /// Number of pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Federated credential that the app registration needs in Entra. Copy the values exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<FederatedCredential>,
    /// Summary of the compiled policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySummary>,
    /// Backend as the ready pods observe it. Present only with `spec.backend`, after its first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendSummary>,
    /// Host, path and audiences that this server owns. Absent while another server owns one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,
    /// Conditions of the McpServer, one for each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Federated credential that the app registration needs in Entra. Copy the values exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FederatedCredential {
    /// Issuer of the cluster's service account tokens, read from the token of a pod. Absent until a pod has reported
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Subject of the token: `system:serviceaccount:<namespace>:<name>`.
    pub subject: String,
    /// Audience of the token.
    pub audience: String,
}

/// Values that only this server may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ownership {
    /// Host that clients connect to. Other servers of the namespace may use it with other paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Path on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Client id and audiences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
}

/// Summary of the compiled policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySummary {
    /// Revision of the compiled policy.
    pub revision: String,
    /// Number of role mappings that apply to this server.
    pub mappings: i32,
    /// Number of distinct app roles with grants.
    pub roles: i32,
    /// Number of tools with grants.
    pub tools: i32,
    /// Number of prompts with grants.
    #[serde(default)]
    pub prompts: i32,
    /// Number of resources with grants.
    #[serde(default)]
    pub resources: i32,
}
