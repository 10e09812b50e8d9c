//! `McpRoleMapping`: which app role, group or application of Entra may use which tool of which server. And
//! `ClusterMcpRoleMapping`: the same for the namespaces of a whole cluster, and what nobody may, whoever grants it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use mcp_entra_policy::{CallerKind, GraphAccess};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::selector::label_selector;

/// Which app role, group or application of Microsoft Entra ID may use which tools of which servers of this namespace.
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
    doc = "Which app role, group or application of Microsoft Entra ID may use which tools of which servers of this namespace.",
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
    /// The servers that the grants are about.
    pub servers: ServerSelection,
    /// Grants of tools to roles, groups and applications. They add up; nothing is allowed that no grant allows.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub grants: Vec<Grant>,
}

/// Which app role, group or application of Microsoft Entra ID may use which tools of which servers of which namespaces,
/// and which may not, whoever grants it.
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
    doc = "Which app role, group or application of Microsoft Entra ID may use which tools of which servers of which namespaces, and which may not, whoever grants it.",
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
    "at least one of grants and deny: a mapping without either says nothing"
))]
pub struct ClusterMcpRoleMappingSpec {
    /// The namespaces whose servers are meant, by their labels; `{}` means all.
    #[schemars(schema_with = "label_selector")]
    pub namespace_selector: LabelSelector,
    /// The servers that grants and denies are about.
    pub servers: ServerSelection,
    /// Grants of tools to roles, groups and applications. They add up; nothing is allowed that no grant allows.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub grants: Vec<Grant>,
    /// Denies, which win over every grant. A caller who is only possibly meant, since the groups are unknown, is
    /// denied, too.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub deny: Vec<Deny>,
}

/// The servers that a mapping is about: by name or by labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.names) != has(self.selector)", "exactly one of names and selector"))]
pub struct ServerSelection {
    /// McpServers by name.
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 40), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Option<Vec<String>>,
    /// McpServers by label; `{}` means all.
    #[schemars(schema_with = "label_selector")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// The app registration that the mapping is meant for, a GUID in lower case, since a role of the same name is
    /// another role elsewhere. It holds for tokens of that registration only; where a token's audience proves no
    /// registration, grants do not hold and denies do.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

/// Any of these subjects may use these tools, prompts and resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Name of the grant, unique in its mapping: audit lines name it.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Any of these is meant.
    #[schemars(length(min = 1, max = 64))]
    pub to: Vec<Subject>,
    /// Requirements that the token must meet besides, all of them. They narrow the grant, as for a step-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require: Option<Requirements>,
    /// Access to Microsoft Graph of the tools for these users. `Application` hands them the application's tenant-wide
    /// permissions, and counts only on a server whose `spec.graph.access` is `Application`.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub graph: GraphAccess,
    /// The tools, prompts and resources that they may use.
    pub allow: Allow,
}

/// These subjects may not use these tools, prompts and resources, whoever grants it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.tools) && size(self.tools) > 0) || (has(self.prompts) && size(self.prompts) > 0) || (has(self.resources) && size(self.resources) > 0)",
    "at least one of tools, prompts and resources: a deny of nothing denies nothing"
))]
pub struct Deny {
    /// Name of the deny, unique in its mapping: audit lines name it.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Any of these is meant. Absent: everyone.
    #[schemars(length(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<Subject>>,
    /// Tools: names, or prefixes with a trailing `*`, which here mean tools that write, too.
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.-]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Vec<String>,
    /// Prompts: names, or prefixes with a trailing `*`.
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = r"^[^\s*]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub prompts: Vec<String>,
    /// Resources: URIs, or prefixes with a trailing `*`.
    #[schemars(length(max = 128), inner(length(min = 1, max = 512), regex(pattern = r"^[^\s*]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub resources: Vec<String>,
}

/// An app role, a group or an application: exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = (
        "[has(self.appRole), has(self.group), has(self.application)].filter(given, given).size() == 1",
        "exactly one of appRole, group and application"
    ),
    validation = ("has(self.appRole) || !has(self.callers)", "callers says whom an appRole means, and nothing else")
)]
pub struct Subject {
    /// Value of an app role of the server's app registration, as Entra writes it into the `roles` claim.
    #[schemars(length(min = 1, max = 120), regex(pattern = r"^[^\s]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_role: Option<String>,
    /// Which callers with the app role are meant. Absent means people in a grant, and people and applications in a
    /// deny.
    #[schemars(length(min = 1, max = 2))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub callers: Option<Vec<CallerKind>>,
    /// A group of the tenant. Of an application nobody says which groups it is in: no grant to a group means it, and
    /// every deny to a group does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// An application by itself, without a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<Application>,
}

/// A group of the tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// The group's object id: a GUID in lower case.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    pub id: String,
    /// For people who read the mapping; nothing is decided by it.
    #[schemars(length(min = 1, max = 256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// An application by itself, without a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// The application's client id: a GUID in lower case.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    pub client_id: String,
}

/// Requirements that a user's token must meet for a grant to count. Tokens of applications meet none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.scopes) && size(self.scopes) > 0) || has(self.authenticationContext)",
    "at least one of scopes and authenticationContext: leave require out where nothing is required"
))]
pub struct Requirements {
    /// Scopes of the server's app registration.
    #[schemars(length(max = 16), inner(length(min = 1, max = 120), regex(pattern = "^[A-Za-z0-9._:-]+$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub scopes: Vec<String>,
    /// An authentication context of Conditional Access: `c1` to `c99`.
    #[schemars(length(max = 3), regex(pattern = "^c[1-9][0-9]?$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_context: Option<String>,
}

/// Tools, prompts and resources of a grant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.tools) && size(self.tools) > 0) || (has(self.prompts) && size(self.prompts) > 0) || (has(self.resources) && size(self.resources) > 0)",
    "at least one of tools, prompts and resources: a grant of nothing grants nothing"
))]
pub struct Allow {
    /// Tools: names, or prefixes with a trailing `*`, which never means a built-in tool that writes.
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.-]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Vec<String>,
    /// Prompts: names, or prefixes with a trailing `*`.
    #[schemars(length(max = 128), inner(length(min = 1, max = 128), regex(pattern = r"^[^\s*]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub prompts: Vec<String>,
    /// Resources: URIs, or prefixes with a trailing `*`.
    #[schemars(length(max = 128), inner(length(min = 1, max = 512), regex(pattern = r"^[^\s*]*\*?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub resources: Vec<String>,
}

/// Observed state of a mapping of either kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpRoleMappingStatus {
    /// The generation of the spec that this status is about; -1 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of existing servers that the mapping binds.
    #[serde(default)]
    pub servers: i32,
    /// The first ten of them by name; of a cluster mapping as namespace/name.
    #[schemars(length(max = 10))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_names: Vec<String>,
    /// Number of names and prefixes in the mapping that nothing which a bound server offers matches.
    #[serde(default)]
    pub unmatched: i32,
    /// The first ten of them: probably misspelt.
    #[schemars(length(max = 10))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched_names: Vec<String>,
    /// The state now: `Accepted` (every named server exists and is meant), `Programmed` (every bound server's compiled
    /// policy holds the mapping) and `Ready` (both).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
