//! `McpServer`: one MCP server behind Entra, as an application team asks for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use mcp_entra_policy::GraphAccess;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Audit, AuthorizationServer, Autoscaling, Backend, BackendSummary, Entra, Exposure, NetworkPolicy, PodTemplate,
    RateLimit,
};

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
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
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
    ),
    validation = (
        "!has(self.spec.replicas) || !has(self.spec.autoscaling)",
        "spec.replicas and spec.autoscaling exclude each other: an autoscaler sets the number of pods itself"
    ),
    validation = (
        "!has(self.spec.authorizationServer) || !has(self.spec.authorizationServer.sessionStore.valkey) || !has(self.spec.authorizationServer.sessionStore.valkey.passwordSecretRef) || self.spec.authorizationServer.sessionStore.valkey.passwordSecretRef.name == self.metadata.name + '-session-store'",
        "spec.authorizationServer.sessionStore.valkey.passwordSecretRef.name is the McpServer's name and -session-store: by that name whoever makes the Secret says that this server may send it to a session store"
    ),
    validation = (
        "!has(self.spec.authorizationServer) || has(self.spec.exposure)",
        "spec.authorizationServer needs spec.exposure: browsers and clients reach it by the server's URL, which is its issuer"
    ),
    validation = (
        "!has(self.spec.authorizationServer) || !has(self.spec.authorizationServer.sessionStore.memory) || ((!has(self.spec.replicas) || self.spec.replicas <= 1) && (!has(self.spec.autoscaling) || self.spec.autoscaling.maxReplicas <= 1))",
        "spec.authorizationServer.sessionStore.memory is the memory of one pod: set spec.replicas or spec.autoscaling.maxReplicas to 1, or name sessionStore.valkey, which pods share"
    ),
    validation = (
        "!has(self.spec.authorizationServer) || !has(self.spec.authorizationServer.userConsentScopes) || self.spec.authorizationServer.userConsentScopes.all(scope, has(self.spec.graph) && scope in self.spec.graph.scopes)",
        "each of spec.authorizationServer.userConsentScopes is one of spec.graph.scopes, too: people consent to what the server asks of Graph; without spec.graph, name none"
    ),
    validation = (
        "has(self.spec.graph) != has(self.spec.backend)",
        "exactly one of spec.graph and spec.backend: a server offers the built-in tools, or those of another MCP server"
    ),
    validation = (
        "!has(self.spec.backend) || has(self.spec.networkPolicy)",
        "spec.backend needs spec.networkPolicy: name the peers that reach the server in allowFrom, since others may reach no port of the backend"
    ),
    validation = (
        "!has(self.spec.backend) || !has(self.spec.backend.env) || self.spec.backend.env.all(variable, !has(variable.valueFrom) || variable.valueFrom.secretKeyRef.name == self.metadata.name + '-backend' || variable.valueFrom.secretKeyRef.name.startsWith(self.metadata.name + '-backend.'))",
        "spec.backend.env: a Secret's name is the McpServer's name and -backend, or that, a dot and more: by that name whoever makes the Secret says that this server's backend may read it"
    ),
    validation = (
        "!has(self.spec.backend) || !has(self.spec.autoscaling) || (has(self.spec.backend.resources) && ((has(self.spec.backend.resources.requests) && has(self.spec.backend.resources.requests.cpu)) || (has(self.spec.backend.resources.limits) && has(self.spec.backend.resources.limits.cpu))))",
        "with spec.autoscaling, spec.backend.resources.requests.cpu names the CPU that the backend needs: pods are added by their use of what they request"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct McpServerSpec {
    /// Identity of the server in Microsoft Entra ID, and the tokens that it accepts.
    pub entra: Entra,
    /// The built-in tools and what they may ask of Microsoft Graph. Exactly one of this and `backend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// Another MCP server, which is reached through this one alone. Exactly one of this and `graph`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Box<Backend>>,
    /// The way from outside the cluster to the server. Absent: it is reachable inside the cluster only, and still
    /// authenticates every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<Exposure>,
    /// An authorization server for MCP clients that cannot sign in to Entra themselves. Absent: clients sign in to Entra
    /// directly, and to nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_server: Option<AuthorizationServer>,
    /// Number of pods. Absent: what the autoscaler wants. Where there is none either, one pod at first, and then as
    /// many as somebody sets on the Deployment: the operator leaves the number alone.
    #[schemars(range(min = 0, max = 100))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// An autoscaler that sets the number of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Limits of a caller's requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Additions to the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Peers that reach the pods over the network. Absent: the namespace's other policies decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicy>,
    /// Additions to the pods that the operator builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<Box<PodTemplate>>,
    /// Image of the server. Absent: that of the operator's version. Another one only if the operator's own
    /// configuration allows it.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\s]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// True if the children are left as they are. Role mappings stay in force, and so do their revocations.
    #[serde(default)]
    pub suspend: bool,
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
    /// Built-in tools: names, or prefixes with a trailing `*`, which never means a tool that writes. Unless `access` is
    /// `Application`, `scopes` must cover the permissions of a tool: a prefix leaves other tools out, and the name of one
    /// is refused. Mappings say what a caller may use.
    #[schemars(
        length(min = 1, max = 128),
        inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.-]*\*?$"))
    )]
    #[serde(default = "default_tools")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Vec<String>,
    /// Access to Graph. `Application` serves applications that call without a user; a user's tools go on the
    /// user's behalf even then, unless the grant says `graph: Application`.
    #[serde(default)]
    pub access: GraphAccess,
}

fn default_tools() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Observed state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpServerStatus {
    /// The generation of the spec that this status is about; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version of mcp-entra-server that the ready pods run; while they differ, the oldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// URL that clients connect to. Absent while nothing is exposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// URI that the app registration must have as a redirect URI of the platform "Web". Present with
    /// `spec.authorizationServer` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_uri: Option<String>,
    /// Number of pods.
    #[serde(default)]
    pub replicas: i32,
    /// Number of pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Selects the pods, for what scales and lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The federated credential as it must stand in Entra, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<FederatedCredential>,
    /// The policy as compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySummary>,
    /// The backend as the ready pods find it. Present with `spec.backend` only, once one has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendSummary>,
    /// The host, path and audiences that this server holds; absent while it does not hold all that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,
    /// Observed state, one condition a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The federated credential as it must stand in Entra, exactly.
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

/// The values that no other server may have while this one holds them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ownership {
    /// The host that clients connect to. Other servers of the namespace share it by path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The client id and the audiences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
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
    /// Number of distinct prompts that are granted to somebody.
    #[serde(default)]
    pub prompts: i32,
    /// Number of distinct resources that are granted to somebody.
    #[serde(default)]
    pub resources: i32,
}
