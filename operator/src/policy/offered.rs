//! Names that a backend offers, to compare with mappings and summaries of policies.

use std::collections::BTreeSet;

use mcp_entra_policy::{CompiledPolicy, Operation};

/// The names that a backend offers, with those that are hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) tools: BTreeSet<String>,
    pub(crate) prompts: BTreeSet<String>,
    /// URIs and URI templates.
    pub(crate) resources: BTreeSet<String>,
    /// True if a trailing `*` can grant tools.
    pub(crate) is_pinned: bool,
}

impl Offered {
    /// Returns all offered operations, tools first.
    pub(crate) fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        let tools = self.tools.iter().map(|name| Operation::Tool { name, writes: !self.is_pinned });
        let prompts = self.prompts.iter().map(|name| Operation::Prompt(name));
        tools.chain(prompts).chain(self.resources.iter().map(|uri| Operation::Resource(uri)))
    }
}

/// Returns true if a policy grants the operation to anyone.
pub(crate) fn is_granted(policy: &CompiledPolicy, operation: Operation<'_>) -> bool {
    policy.grants.iter().any(|grant| grant.allow.grant(operation))
}
