//! Permissions of one caller: the policy in force and the facts about the caller.

use std::collections::BTreeSet;
use std::sync::Arc;

use mcp_entra_policy::{Caller, CallerKind, CompiledPolicy, Decision, GraphAccess, Groups, Operation, Refusal};

/// A valid policy document.
#[derive(Debug, Default)]
pub struct PolicyInForce {
    policy: CompiledPolicy,
    revision: String,
    group_ids: BTreeSet<String>,
    denied_group_ids: BTreeSet<String>,
}

impl PolicyInForce {
    /// Wraps this policy. `revision` is the revision of its document.
    pub fn new(policy: CompiledPolicy, revision: String) -> Self {
        let (group_ids, denied_group_ids) = (policy.group_ids(), policy.denied_group_ids());
        Self { policy, revision, group_ids, denied_group_ids }
    }

    /// Returns the policy itself.
    pub fn policy(&self) -> &CompiledPolicy {
        &self.policy
    }

    /// Returns everything that the policy revokes at the server's authorization server.
    pub fn revoked(&self) -> Revoked {
        let CompiledPolicy { revoke_sessions_before, compromised_keys, .. } = &self.policy;
        Revoked { sessions_before: *revoke_sessions_before, compromised_keys: compromised_keys.clone() }
    }

    /// Returns the revision of the document.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

/// Revocations for the server's authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    sessions_before: Option<i64>,
    compromised_keys: Option<String>,
}

/// Permissions of one caller under the policy that was in force when the request arrived. A request keeps them to its
/// end, so that every part of the answer uses one revision.
#[derive(Clone, Debug)]
pub struct Permissions {
    caller: Arc<Caller>,
    policy: Arc<PolicyInForce>,
    groups: GroupSource,
}

/// The source of the groups for a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupSource {
    /// The token alone.
    Token,
    /// The token, and a directory that was not asked yet.
    Directory {
        /// The widest access to Graph that matters: a grant to a group may give an allowed call wider access.
        reachable: GraphAccess,
    },
    /// The token, and a directory that answered.
    Learnt {
        /// True if the directory may hide groups.
        hidden: bool,
    },
    /// The token, and a directory that could not answer.
    Unlearnt {
        /// The reason for the user, with the next step.
        why: String,
    },
}

impl Permissions {
    /// Returns permissions from the caller's token alone.
    pub fn new(caller: Arc<Caller>, policy: Arc<PolicyInForce>) -> Self {
        Self { caller, policy, groups: GroupSource::Token }
    }

    /// Adds a directory that can be asked for groups.
    pub fn with_directory(self, reachable: GraphAccess) -> Self {
        Self { groups: GroupSource::Directory { reachable }, ..self }
    }

    /// Adds the directory's answer: the caller's groups among those asked about, or a failure.
    pub fn with_learnt(self, learnt: Result<&Groups, &str>) -> Self {
        let groups = match learnt {
            Ok(learnt) => GroupSource::Learnt { hidden: matches!(learnt, Groups::AtLeast(_)) },
            Err(why) => GroupSource::Unlearnt { why: why.to_owned() },
        };
        Self { groups, ..self.with_more_groups(learnt.ok()) }
    }

    /// Returns everything that the policy revokes.
    pub fn revoked(&self) -> Revoked {
        self.policy.revoked()
    }

    /// Returns the kind of the caller.
    pub fn kind(&self) -> CallerKind {
        self.caller.kind
    }

    /// Returns the source of the caller's groups.
    pub fn groups(&self) -> &GroupSource {
        &self.groups
    }

    /// Decides about an operation.
    pub fn decide(&self, operation: Operation<'_>) -> Decision {
        self.policy.policy.decide(&self.caller, operation)
    }

    /// Returns true if an operation is allowed.
    pub fn allow(&self, operation: Operation<'_>) -> bool {
        self.policy.policy.allows(&self.caller, operation)
    }

    /// Returns the groups that a decision about one operation depends on and that the directory must look up.
    pub(super) fn groups_to_use(&self, operation: Operation<'_>) -> Option<BTreeSet<String>> {
        let GroupSource::Directory { reachable } = self.groups else { return None };
        self.groups_to_learn([operation], reachable)
    }

    /// Returns the groups that a list of the allowed operations depends on and that the directory must look up.
    pub(super) fn groups_to_list<'a>(
        &self,
        operations: impl IntoIterator<Item = Operation<'a>>,
    ) -> Option<BTreeSet<String>> {
        let GroupSource::Directory { .. } = self.groups else { return None };
        // A list does not depend on the access to Graph.
        self.groups_to_learn(operations, GraphAccess::OnBehalfOf)
    }

    /// Returns the unknown groups on which a decision about any of these operations depends.
    ///
    /// A listed group proves membership, but a missing one proves nothing. The token may list only direct members,
    /// assigned groups or security groups. So groups with a deny are looked up unless the token lists them.
    fn groups_to_learn<'a>(
        &self,
        operations: impl IntoIterator<Item = Operation<'a>>,
        reachable: GraphAccess,
    ) -> Option<BTreeSet<String>> {
        if self.caller.kind != CallerKind::User {
            return None;
        }
        let policy = &self.policy;
        let mut operations = operations.into_iter();
        let (ids, needed): (BTreeSet<String>, bool) = match &self.caller.groups {
            listed @ (Groups::Known(_) | Groups::AtLeast(_)) => {
                let unlisted = self.clone().with_more_groups(None);
                let needed =
                    |operation| self.decide(operation).is_allowed() && !unlisted.decide(operation).is_allowed();
                let denied = policy.denied_group_ids.iter().filter(|id| !listed.list(id)).cloned();
                (denied.collect(), operations.any(needed))
            }
            Groups::Unknown => {
                (policy.group_ids.clone(), operations.any(|operation| self.may_become_more(operation, reachable)))
            }
        };
        (needed && !ids.is_empty()).then_some(ids)
    }

    /// True if known groups could allow a refused operation, or give an allowed one wider access to Graph.
    fn may_become_more(&self, operation: Operation<'_>, reachable: GraphAccess) -> bool {
        match self.decide(operation) {
            Decision::Allowed { graph, .. } => {
                graph < reachable && self.policy.policy.widens_access_for_a_group(operation)
            }
            Decision::Refused(Refusal::Denied { groups_unknown, .. }) => groups_unknown,
            Decision::Refused(Refusal::NotGranted(ways)) => ways.groups_unknown,
            Decision::Refused(_) => true,
        }
    }

    /// Adds these groups to those of the token. Only a complete answer excludes other groups.
    fn with_more_groups(mut self, learnt: Option<&Groups>) -> Self {
        let more = learnt.map_or(&[][..], Groups::ids);
        let groups = self.caller.groups.ids().iter().chain(more).copied().collect();
        let all = matches!(learnt, Some(Groups::Known(_)));
        Arc::make_mut(&mut self.caller).groups = if all { Groups::Known(groups) } else { Groups::AtLeast(groups) };
        self
    }
}
