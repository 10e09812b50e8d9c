//! `McpRoleMapping` and `ClusterMcpRoleMapping`: grants of tools to app roles, groups and applications of Microsoft
//! Entra ID. A `ClusterMcpRoleMapping` applies to several namespaces, and can also deny.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use mcp_entra_policy::{CallerKind, GraphAccess};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::selector::label_selector;

/// Grants app roles, groups and applications of Microsoft Entra ID the use of tools, prompts and resources of
/// McpServers in this namespace.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mcp-entra.dev",
    version = "v1alpha1",
    kind = "McpRoleMapping",
    plural = "mcprolemappings",
    shortname = "mcprm",
    category = "mcp-entra",
    namespaced,
    status = "McpRoleMappingStatus",
    derive = "PartialEq",
    doc = "Grants app roles, groups and applications of Microsoft Entra ID the use of tools, prompts and resources of McpServers in this namespace.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.servers"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct McpRoleMappingSpec {
    /// McpServers that the grants apply to.
    pub servers: ServerSelection,
    /// Grants of tools, prompts and resources. They add up. A caller may do nothing that no grant allows. At most 64.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub grants: Vec<Grant>,
}

/// Grants or denies app roles, groups and applications of Microsoft Entra ID the use of tools, prompts and resources of
/// McpServers in selected namespaces.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mcp-entra.dev",
    version = "v1alpha1",
    kind = "ClusterMcpRoleMapping",
    plural = "clustermcprolemappings",
    shortname = "cmcprm",
    category = "mcp-entra",
    status = "McpRoleMappingStatus",
    derive = "PartialEq",
    doc = "Grants or denies app roles, groups and applications of Microsoft Entra ID the use of tools, prompts and resources of McpServers in selected namespaces.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.servers"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.grants) && size(self.grants) > 0) || (has(self.deny) && size(self.deny) > 0)",
    "at least one of grants and deny must be set"
))]
pub struct ClusterMcpRoleMappingSpec {
    /// Label selector of the namespaces whose McpServers the mapping applies to. `{}` selects all namespaces.
    #[schemars(schema_with = "label_selector")]
    pub namespace_selector: LabelSelector,
    /// McpServers in these namespaces that the mapping applies to.
    pub servers: ServerSelection,
    /// Grants of tools, prompts and resources. They add up. A caller may do nothing that no grant allows. At most 64.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub grants: Vec<Grant>,
    /// Denies, which take precedence over every grant. A deny to a group also applies to callers whose groups are
    /// unknown. At most 64.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub deny: Vec<Deny>,
}

/// McpServers that a mapping applies to. Exactly one of `names` and `selector` must be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.names) != has(self.selector)", "exactly one of names and selector must be set"))]
pub struct ServerSelection {
    /// Names of McpServers. At most 64.
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 40), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Option<Vec<String>>,
    /// Label selector of McpServers. `{}` selects all.
    #[schemars(schema_with = "label_selector")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Client id of the app registration that the roles and groups of this mapping belong to. Must be a GUID in lower
    /// case. If set, the mapping applies only to tokens of this registration. If the audience of a token does not prove
    /// a registration, grants do not apply to it, but denies do.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// Grant of tools, prompts and resources to subjects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Name of the grant, which the audit log shows. Must be unique in the mapping.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Subjects of the grant. It applies to a caller who matches at least one. At most 64.
    #[schemars(length(min = 1, max = 64))]
    pub to: Vec<Subject>,
    /// Additional requirements on the caller's token, such as an authentication context. The grant applies only if all
    /// of them are met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require: Option<Requirements>,
    /// Access of the tools to Microsoft Graph: `OnBehalfOf` (as the signed-in user) or `Application` (with the
    /// tenant-wide permissions of the application). `Application` has an effect only on an McpServer with
    /// `spec.graph.access: Application`. Defaults to `OnBehalfOf`.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub graph: GraphAccess,
    /// Tools, prompts and resources that the subjects may use.
    pub allow: Allow,
}

/// Deny of tools, prompts and resources to subjects. It takes precedence over every grant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.tools) && size(self.tools) > 0) || (has(self.prompts) && size(self.prompts) > 0) || (has(self.resources) && size(self.resources) > 0)",
    "at least one of tools, prompts and resources must be set in a deny"
))]
pub struct Deny {
    /// Name of the deny, which the audit log shows. Must be unique in the mapping.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Subjects of the deny. It applies to a caller who matches at least one. If absent, it applies to everyone. At
    /// most 64.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<Subject>>,
    /// Names of tools, or prefixes with a trailing `*`. A prefix also selects tools that write.
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.-]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Vec<String>,
    /// Names of prompts, or prefixes with a trailing `*`.
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = r"^[^\s*]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub prompts: Vec<String>,
    /// URIs of resources, or prefixes with a trailing `*`.
    #[schemars(length(max = 128), inner(length(min = 1, max = 512), regex(pattern = r"^[^\s*]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub resources: Vec<String>,
}

/// Subject of a grant or deny. Exactly one of `appRole`, `group` and `application` must be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "[has(self.appRole), has(self.group), has(self.application)].filter(given, given).size() == 1",
        "exactly one of appRole, group and application must be set"
    ),
    validation = ("has(self.appRole) || !has(self.callers)", "callers is allowed only with appRole")
)]
pub struct Subject {
    /// Value of an app role of the server's app registration, as in the `roles` claim of a token.
    #[schemars(length(min = 1, max = 120), regex(pattern = r"^[^\s]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_role: Option<String>,
    /// Kinds of callers with the app role: `User`, `Application` or both. Allowed only with `appRole`. Defaults to
    /// `User` in a grant, and to both in a deny.
    #[schemars(length(min = 1, max = 2))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub callers: Option<Vec<CallerKind>>,
    /// Group of the tenant. The groups of an application are never known: a grant to a group does not apply to
    /// applications, and a deny to a group applies to all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Application that calls without a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<Application>,
}

/// Group of the tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Object id of the group. Must be a GUID in lower case.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    pub id: String,
    /// Name for readers of the mapping and in messages. It has no effect on decisions.
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Application that calls without a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// Client id of the application. Must be a GUID in lower case.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    pub client_id: String,
}

/// Requirements on a user's token. A grant with requirements never applies to applications.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.scopes) && size(self.scopes) > 0) || has(self.authenticationContext)",
    "at least one of scopes and authenticationContext must be set; remove require if nothing is required"
))]
pub struct Requirements {
    /// Scopes of the server's app registration. The token must contain all of them. At most 16.
    #[schemars(length(max = 16), inner(length(min = 1, max = 120), regex(pattern = "^[A-Za-z0-9._:-]+$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
    /// Authentication context of Conditional Access, `c1` to `c99`. The sign-in must have satisfied it.
    #[schemars(length(max = 3), regex(pattern = "^c[1-9][0-9]?$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_context: Option<String>,
}

/// Tools, prompts and resources that a grant allows. At least one must be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.tools) && size(self.tools) > 0) || (has(self.prompts) && size(self.prompts) > 0) || (has(self.resources) && size(self.resources) > 0)",
    "at least one of tools, prompts and resources must be set in a grant"
))]
pub struct Allow {
    /// Names of tools, or prefixes with a trailing `*`. A prefix never selects a built-in tool that writes.
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.-]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Vec<String>,
    /// Names of prompts, or prefixes with a trailing `*`.
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = r"^[^\s*]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub prompts: Vec<String>,
    /// URIs of resources, or prefixes with a trailing `*`.
    #[schemars(length(max = 128), inner(length(min = 1, max = 512), regex(pattern = r"^[^\s*]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub resources: Vec<String>,
}

/// Observed state of a role mapping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpRoleMappingStatus {
    /// Generation of the spec that this status describes. -1 until the first reconcile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of existing McpServers that the mapping applies to.
    #[serde(default)]
    pub servers: i32,
    /// Names of the first ten of these servers, as namespace/name for a ClusterMcpRoleMapping.
    #[schemars(length(max = 10))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<String>,
    /// Number of names and prefixes in the mapping that match nothing on these servers.
    #[serde(default)]
    pub unmatched: i32,
    /// First ten of the names and prefixes that match nothing. They may be misspelled.
    #[schemars(length(max = 10))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched_names: Vec<String>,
    /// Conditions of the mapping: `Accepted` (every named server exists and is selected), `Programmed` (the compiled
    /// policy of every selected server contains the mapping) and `Ready` (both).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
