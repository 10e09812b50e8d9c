//! The compiled policy: every grant that binds one server, as one document with one revision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::BuiltInTool;

/// The key of the compiled policy in its ConfigMap, and its file name.
pub const POLICY_KEY: &str = "policy.json";

/// Every grant that binds one server. The empty policy lets nobody do anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompiledPolicy {
    /// The grants of all mappings, ordered by mapping and name.
    pub grants: Vec<Grant>,
}

/// One grant of one mapping: these subjects may use these tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// The McpRoleMapping that the grant stands in.
    pub mapping: MappingReference,
    /// The grant's name in it.
    pub name: String,
    /// Any of these subjects is meant.
    pub to: Vec<Subject>,
    /// What they may use.
    pub allow: Allow,
}

/// The name of an McpRoleMapping.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MappingReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Who is meant by a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Subject {
    /// Users with this app role of the server's app registration.
    AppRole(String),
    /// Members of this Entra group.
    #[serde(rename_all = "camelCase")]
    Group {
        /// The group's object id, a GUID in lower case.
        id: String,
        /// For people only: nothing is decided by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        display_name: Option<String>,
    },
}

/// What a grant lets its subjects use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allow {
    /// Tools by name or prefix.
    #[serde(default)]
    pub tools: Vec<ToolPattern>,
}

/// A tool's name, or a prefix of names followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct ToolPattern(pub String);

impl ToolPattern {
    /// Whether the pattern means this tool. A tool that writes is never meant by a prefix, only by its full name,
    /// so that `*` cannot grant a change to anyone by surprise.
    pub fn matches(&self, tool: &BuiltInTool) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => !tool.writes && tool.name.starts_with(prefix),
            None => self.0 == tool.name,
        }
    }
}

/// Why a policy document cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the compiled policy cannot be read ({0}); the last good one stays in force until the operator writes it anew")]
pub struct PolicyError(#[from] serde_json::Error);

impl CompiledPolicy {
    /// The policy that this document holds.
    pub fn parse(document: &[u8]) -> Result<Self, PolicyError> {
        Ok(serde_json::from_slice(document)?)
    }
}

/// The revision of a policy document: the first 128 bits of the SHA-256 of its bytes, in
/// hexadecimal. The operator
/// computes it of what it writes, a pod of what it read, so that equal revisions mean equal policies.
pub fn revision(document: &[u8]) -> String {
    let mut digits = hex::encode(Sha256::digest(document));
    digits.truncate(32);
    digits
}
