//! Compiled policy: all denies and grants that apply to one server, as one document with one revision.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{GraphAccess, Operation};

/// Key of the compiled policy in its ConfigMap, and its file name.
pub const POLICY_KEY: &str = "policy.json";

/// All rules of role mappings for one server. The empty policy allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompiledPolicy {
    /// Denies of all ClusterMcpRoleMappings, ordered by mapping. They take precedence over every grant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denies: Vec<Deny>,
    /// Grants of all mappings, ordered by mapping.
    pub grants: Vec<Grant>,
    /// Time in seconds since 1970. Sessions of the server's own authorization server that began earlier are ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke_sessions_before: Option<i64>,
    /// Name of the last key compromise of the authorization server. A pod with older keys neither accepts nor issues
    /// anything with them. The name is part of the policy so that it takes effect before pods are replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_keys: Option<String>,
}

/// Grant of one mapping: the subjects may use the primitives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Mapping that contains the grant.
    pub mapping: MappingReference,
    /// Name of the grant in the mapping.
    pub name: String,
    /// Client id of the app registration whose tokens the rule applies to, a GUID in lower case. If absent, it applies
    /// to every accepted token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    /// Subjects of the grant. It applies to a caller who matches at least one.
    pub to: Vec<Subject>,
    /// Additional requirements on the caller's token.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub require: Requirements,
    /// Access of the tools to Microsoft Graph.
    #[serde(default, skip_serializing_if = "GraphAccess::is_default")]
    pub graph: GraphAccess,
    /// Tools, prompts and resources that the subjects may use.
    pub allow: Primitives,
}

/// Deny of one ClusterMcpRoleMapping: the subjects may not use the primitives, even with a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deny {
    /// Mapping that contains the deny.
    pub mapping: MappingReference,
    /// Name of the deny in the mapping.
    pub name: String,
    /// Client id of the app registration whose tokens the rule applies to, a GUID in lower case. If absent, it applies
    /// to every accepted token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    /// Subjects of the deny. It applies to a caller who matches at least one. If absent, it applies to everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<Subject>>,
    /// Tools, prompts and resources that the subjects may not use.
    pub forbid: Primitives,
}

/// Name of a role mapping.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MappingReference {
    /// Namespace of an McpRoleMapping. Absent for a ClusterMcpRoleMapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the mapping.
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

/// Subject of a grant or a deny.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Subject {
    /// Callers with this app role of the server's app registration.
    AppRole {
        /// Value of the role, as in the `roles` claim.
        role: String,
        /// Kinds of callers with the role. An application can have a role of the same name as users.
        callers: BTreeSet<CallerKind>,
    },
    /// Members of this group in Entra.
    #[serde(rename_all = "camelCase")]
    Group {
        /// Object id of the group, a GUID in lower case.
        id: String,
        /// Name for people. It has no effect on decisions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        display_name: Option<String>,
    },
    /// Application that calls without a user.
    #[serde(rename_all = "camelCase")]
    Application {
        /// Client id of the application, a GUID in lower case.
        client_id: String,
    },
}

/// Kind of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CallerKind {
    /// User, with a delegated token.
    User,
    /// Application without a user, with an app-only token.
    Application,
}

/// Requirements on a token. A grant applies only if the token meets all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirements {
    /// Scopes of the server's app registration (bare names, as in `scp`).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub scopes: BTreeSet<String>,
    /// Authentication context of Conditional Access, such as `c1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_context: Option<String>,
}

impl Requirements {
    /// Returns whether nothing is required.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Patterns of tools, prompts and resources of MCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Primitives {
    /// Names of tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Pattern>,
    /// Names of prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<Pattern>,
    /// URIs of resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Pattern>,
}

impl Primitives {
    /// Returns whether a grant of these covers the operation.
    pub fn grant(&self, operation: Operation<'_>) -> bool {
        self.patterns(operation).iter().any(|pattern| pattern.grants(operation))
    }

    /// Returns whether a deny of these covers the operation.
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

/// Name, or prefix of names with a trailing `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Pattern(pub String);

impl Pattern {
    /// Returns whether the pattern matches the name.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.0 == name,
        }
    }

    /// Returns whether the pattern grants the operation. A prefix never grants a tool that may write, so that `*`
    /// cannot grant changes by mistake. Such a tool needs its full name. In a deny, a prefix does match it.
    pub fn grants(&self, operation: Operation<'_>) -> bool {
        let by_full_name_alone = matches!(operation, Operation::Tool { writes: true, .. });
        self.matches(operation.name()) && !(by_full_name_alone && self.0.ends_with('*'))
    }
}

/// Error of a policy document that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the compiled policy cannot be read ({0}); the last valid one stays in force until the operator writes a new one"
)]
pub struct PolicyError(#[from] serde_json::Error);

impl CompiledPolicy {
    /// Returns the ids of all groups that grants or denies name.
    pub fn group_ids(&self) -> BTreeSet<String> {
        let granted = group_ids(self.grants.iter().flat_map(|grant| &grant.to));
        granted.chain(self.denied_group_ids()).collect()
    }

    /// Returns the ids of all groups that denies name.
    pub fn denied_group_ids(&self) -> BTreeSet<String> {
        group_ids(self.denies.iter().filter_map(|deny| deny.to.as_ref()).flatten()).collect()
    }

    /// Returns whether a grant to a group gives this operation access to Graph as the application.
    pub fn widens_access_for_a_group(&self, operation: Operation<'_>) -> bool {
        let widens = |grant: &&Grant| grant.graph == GraphAccess::Application && grant.allow.grant(operation);
        group_ids(self.grants.iter().filter(widens).flat_map(|grant| &grant.to)).next().is_some()
    }

    /// Parses a policy document.
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

/// Returns the revision of a policy document: the first 128 bits of the SHA-256 of its bytes, in hexadecimal. The
/// operator computes it from the bytes that it writes, and a pod from those that it reads. Equal revisions therefore
/// mean equal policies.
pub fn revision(document: &[u8]) -> String {
    let mut digits = hex::encode(Sha256::digest(document));
    digits.truncate(32);
    digits
}
