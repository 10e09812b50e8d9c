//! Deciding by the compiled policy: who asks, for what, and which grant or lack of one answers.

use std::collections::BTreeSet;

use crate::{BuiltInTool, CompiledPolicy, Grant, MappingReference, Subject};

/// Who asks, as far as decisions depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// A person, or an application without one.
    pub kind: CallerKind,
    /// The `roles` claim.
    pub roles: BTreeSet<String>,
    /// The groups that the caller is known to be in.
    pub groups: Groups,
}

/// A person, or an application without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// A user token (delegated).
    User,
    /// An app-only token.
    Application,
}

/// The groups that a caller is known to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// The object ids of all groups, in lower case.
    Known(BTreeSet<String>),
    /// They could not be learnt: the claim is absent, or replaced by an overage indicator. Never read as "no groups".
    Unknown,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// To use a tool: call it, or see it listed.
    Tool(&'a BuiltInTool),
}

/// What was decided, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A grant allows it.
    Allowed {
        /// The mapping that the grant stands in.
        mapping: MappingReference,
        /// The grant's name.
        grant: String,
    },
    /// Nothing allows it.
    Refused(Refusal),
}

impl Decision {
    /// Whether the operation may proceed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// Why an operation is refused, and what would allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// App roles that some grant allows the operation to, in order.
    pub roles: BTreeSet<String>,
    /// Groups (display name, or id where there is none) that some grant allows the operation to, in order.
    pub groups: BTreeSet<String>,
    /// Whether a grant to a group would have been decisive, had the caller's groups been known.
    pub groups_unknown: bool,
}

/// Whether the caller is meant by a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    Yes,
    No,
    Unknown,
}

impl CompiledPolicy {
    /// Decides about one operation: the union of the grants whose subject the caller is known to be; by default,
    /// nothing. A membership that is unknown grants nothing.
    pub fn decide(&self, caller: &Caller, operation: Operation<'_>) -> Decision {
        let mut refusal = Refusal { roles: BTreeSet::new(), groups: BTreeSet::new(), groups_unknown: false };
        for grant in self.grants.iter().filter(|grant| grant.covers(operation)) {
            for subject in &grant.to {
                match membership(caller, subject) {
                    Membership::Yes => {
                        return Decision::Allowed { mapping: grant.mapping.clone(), grant: grant.name.clone() };
                    }
                    Membership::No => refusal.add(subject),
                    Membership::Unknown => {
                        refusal.add(subject);
                        refusal.groups_unknown = true;
                    }
                }
            }
        }
        Decision::Refused(refusal)
    }
}

impl Grant {
    fn covers(&self, operation: Operation<'_>) -> bool {
        match operation {
            Operation::Tool(tool) => self.allow.tools.iter().any(|pattern| pattern.matches(tool)),
        }
    }
}

impl Refusal {
    fn add(&mut self, subject: &Subject) {
        match subject {
            Subject::AppRole(role) => self.roles.insert(role.clone()),
            Subject::Group { id, display_name } => self.groups.insert(display_name.as_ref().unwrap_or(id).clone()),
        };
    }
}

/// Grants mean people: an application with a role of the same name is not one, whatever its token says.
fn membership(caller: &Caller, subject: &Subject) -> Membership {
    if caller.kind == CallerKind::Application {
        return Membership::No;
    }
    let member = match (subject, &caller.groups) {
        (Subject::AppRole(role), _) => caller.roles.contains(role),
        (Subject::Group { id, .. }, Groups::Known(groups)) => groups.contains(id),
        (Subject::Group { .. }, Groups::Unknown) => return Membership::Unknown,
    };
    if member { Membership::Yes } else { Membership::No }
}
