//! The compiled policy: every deny and grant that binds one server, as one document with one revision.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{GraphAccess, Operation};

/// The key of the compiled policy in its ConfigMap, and its file name.
pub const POLICY_KEY: &str = "policy.json";

/// Everything that mappings say about one server. The empty policy lets nobody do anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompiledPolicy {
    /// The denies, which win over every grant: those of all cluster mappings, ordered by mapping.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denies: Vec<Deny>,
    /// The grants of all mappings, ordered by mapping.
    pub grants: Vec<Grant>,
    /// Seconds since 1970: sessions of the server's own authorization server that began before this have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_sessions_before: Option<i64>,
    /// Name of the last compromise of that server's keys. A pod whose keys are of before it accepts and issues nothing by
    /// them: it stands here so that it takes effect at once, whenever the pod is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_keys: Option<String>,
}

/// One grant of one mapping: these subjects may use these primitives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// The mapping that the grant stands in.
    pub mapping: MappingReference,
    /// The grant's name in it.
    pub name: String,
    /// The app registration whose tokens alone it holds for: a GUID in lower case. Absent: every accepted token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    /// Any of these subjects is meant.
    pub to: Vec<Subject>,
    /// The requirements that the token must meet besides.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub require: Requirements,
    /// The access of their tools to Microsoft Graph.
    #[serde(default, skip_serializing_if = "GraphAccess::is_default")]
    pub graph: GraphAccess,
    /// The tools, prompts and resources that they may use.
    pub allow: Primitives,
}

/// One deny of one cluster mapping: these subjects may not use these primitives, whoever grants them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deny {
    /// The mapping that the deny stands in.
    pub mapping: MappingReference,
    /// The deny's name in it.
    pub name: String,
    /// The app registration whose tokens alone it holds for: a GUID in lower case. Absent: every accepted token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    /// Any of these subjects is meant. Absent: everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<Subject>>,
    /// The tools, prompts and resources that they may not use.
    pub forbid: Primitives,
}

/// The name of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MappingReference {
    /// The namespace of an McpRoleMapping; absent for a ClusterMcpRoleMapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for MappingReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(formatter, "{namespace}/{}", self.name),
            None => formatter.write_str(&self.name),
        }
    }
}

/// A subject of a grant or a deny.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Subject {
    /// Callers with this app role of the server's app registration.
    AppRole {
        /// The role's value, as in the `roles` claim.
        role: String,
        /// The callers that are meant: an application can have a role of the same name as people.
        callers: BTreeSet<CallerKind>,
    },
    /// Members of this Entra group.
    #[serde(rename_all = "camelCase")]
    Group {
        /// The group's object id, a GUID in lower case.
        id: String,
        /// For people only: nothing is decided by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        display_name: Option<String>,
    },
    /// This application by itself, without a person.
    #[serde(rename_all = "camelCase")]
    Application {
        /// The application's client id, a GUID in lower case.
        client_id: String,
    },
}

/// A person, or an application without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CallerKind {
    /// A user token (delegated).
    User,
    /// An app-only token.
    Application,
}

/// Requirements that a token must meet for a grant to count, all of them. They narrow the grant, and grant nothing
/// by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirements {
    /// Scopes of the server's app registration (bare names, as in `scp`).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub scopes: BTreeSet<String>,
    /// An authentication context of Conditional Access, as `c1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_context: Option<String>,
}

impl Requirements {
    /// Says if nothing is required.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Tools, prompts and resources of MCP: each by patterns of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Primitives {
    /// Tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Pattern>,
    /// Prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<Pattern>,
    /// Resources, by URI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Pattern>,
}

impl Primitives {
    /// Says if a grant of these covers the operation.
    pub fn grant(&self, operation: Operation<'_>) -> bool {
        self.patterns(operation).iter().any(|pattern| pattern.grants(operation))
    }

    /// Says if a deny of these covers the operation.
    pub fn forbid(&self, operation: Operation<'_>) -> bool {
        self.patterns(operation).iter().any(|pattern| pattern.matches(operation.name()))
    }

    fn patterns(&self, operation: Operation<'_>) -> &[Pattern] {
        match operation {
            Operation::Tool { .. } => &self.tools,
            Operation::Prompt(_) => &self.prompts,
            Operation::Resource(_) => &self.resources,
        }
    }
}

/// A name, or a prefix of names followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Pattern(pub String);

impl Pattern {
    /// Says if the pattern means this name.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.0 == name,
        }
    }

    /// Says if the pattern grants the operation. A tool that may write is never granted by a prefix, only by its full name, so that `*` cannot grant a change to anyone by surprise. A deny by `*` does mean it.
    pub fn grants(&self, operation: Operation<'_>) -> bool {
        let by_full_name_alone = matches!(operation, Operation::Tool { writes: true, .. });
        self.matches(operation.name()) && !(by_full_name_alone && self.0.ends_with('*'))
    }
}

/// The reason why a policy document cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the compiled policy cannot be read ({0}); the last good one stays in force until the operator writes it anew")]
pub struct PolicyError(#[from] serde_json::Error);

impl CompiledPolicy {
    /// The ids of all groups that anything depends on.
    pub fn group_ids(&self) -> BTreeSet<String> {
        let granted = group_ids(self.grants.iter().flat_map(|grant| &grant.to));
        granted.chain(self.denied_group_ids()).collect()
    }

    /// The ids of all groups that anything is denied to.
    pub fn denied_group_ids(&self) -> BTreeSet<String> {
        group_ids(self.denies.iter().filter_map(|deny| deny.to.as_ref()).flatten()).collect()
    }

    /// Says if a grant of this operation to a group has Graph reached as the application.
    pub fn widens_access_for_a_group(&self, operation: Operation<'_>) -> bool {
        let widens = |grant: &&Grant| grant.graph == GraphAccess::Application && grant.allow.grant(operation);
        group_ids(self.grants.iter().filter(widens).flat_map(|grant| &grant.to)).next().is_some()
    }

    /// The policy that this document holds.
    pub fn parse(document: &[u8]) -> Result<Self, PolicyError> {
        Ok(serde_json::from_slice(document)?)
    }
}

fn group_ids<'a>(subjects: impl Iterator<Item = &'a Subject>) -> impl Iterator<Item = String> {
    subjects.filter_map(|subject| match subject {
        Subject::Group { id, .. } => Some(id.clone()),
        Subject::AppRole { .. } | Subject::Application { .. } => None,
    })
}

/// The revision of a policy document: the first 128 bits of the SHA-256 of its bytes, in
/// hexadecimal. The operator
/// computes it of what it writes, a pod of what it read, so that equal revisions mean equal policies.
pub fn revision(document: &[u8]) -> String {
    let mut digits = hex::encode(Sha256::digest(document));
    digits.truncate(32);
    digits
}
