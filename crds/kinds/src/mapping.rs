//! `McpRoleMapping`: which app role or group of Entra may use which tool of which server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which app role or group of Microsoft Entra ID may use which tools of which servers of this namespace.
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
    doc = "Which app role or group of Microsoft Entra ID may use which tools of which servers of this namespace.",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Programmed")].status"#
    ),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.servers"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Programmed")].message"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct McpRoleMappingSpec {
    /// The servers that the grants are about.
    pub servers: ServerSelection,
    /// Who may use what. Grants add up; nothing is allowed that no grant allows.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub grants: Vec<Grant>,
}

/// The servers that the grants are about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerSelection {
    /// McpServers of the mapping's namespace, by name.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 40)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,
}

/// Any of these subjects may use these tools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Name of the grant, unique in its mapping: audit lines name it.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Any of these is meant.
    #[schemars(length(min = 1, max = 64))]
    pub to: Vec<Subject>,
    /// What they may use.
    pub allow: Allow,
}

/// An app role or a group: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.appRole) != has(self.group)", "exactly one of appRole and group"))]
pub struct Subject {
    /// Value of an app role of the server's app registration, as Entra writes it into the `roles` claim of users.
    #[schemars(length(min = 1, max = 120), regex(pattern = r"^[^\s]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_role: Option<String>,
    /// A group of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
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

/// What a grant lets its subjects use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// Tools: names, or prefixes with a trailing `*`, which never means a tool that writes.
    #[schemars(
        length(min = 1, max = 128),
        inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.-]*\*?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Vec<String>,
}

/// What is so now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpRoleMappingStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of existing servers that the mapping binds.
    #[serde(default)]
    pub servers: i32,
    /// What is so now: `Accepted` (every named server exists) and `Programmed` (every bound server's compiled policy
    /// holds the grants).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
