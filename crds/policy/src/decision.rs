//! Deciding by the compiled policy: who asks, for what, and which deny, grant or lack of one answers.
//!
//! Membership of a subject is yes, no or unknown, and so is the app registration that a pinned rule holds for. Unknown
//! never grants and always matches a deny. Any matching deny wins; else any grant does whose subject and registration
//! are yes and whose requirements are met; else nothing is allowed.

use std::collections::BTreeSet;

use crate::{
    BuiltInTool, CallerKind, CompiledPolicy, Grant, GraphAccess, MappingReference, Registration, Requirements, Subject,
};

/// The caller, as far as decisions depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// A person, or an application without one.
    pub kind: CallerKind,
    /// The app registration that the token was issued for: roles and scopes are that one's.
    pub registration: Registration,
    /// `azp` or `appid`: the client of a person, or the application itself; a GUID in lower case.
    pub client_id: String,
    /// The `roles` claim.
    pub roles: BTreeSet<String>,
    /// The groups that the caller is known to be in.
    pub groups: Groups,
    /// The `scp` claim; empty for an application.
    pub scopes: BTreeSet<String>,
    /// The `acrs` claim: authentication contexts of Conditional Access that the sign-in satisfied.
    pub authentication_contexts: BTreeSet<String>,
}

/// The groups that a caller is known to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// The object ids of all groups, in lower case.
    Known(BTreeSet<String>),
    /// The object ids of some groups, in lower case. It could not be learnt whether there are others.
    AtLeast(BTreeSet<String>),
    /// They could not be learnt: the claim is absent, lists names, or is replaced by an overage indicator. Never read
    /// as "no groups".
    Unknown,
}

/// An operation: the use of a tool, a prompt or a resource, or its place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// A tool, by name.
    Tool {
        /// Its name.
        name: &'a str,
        /// True for a tool that may change anything: a built-in one that does, or one of a backend without a pin, whose
        /// own words about it prove nothing.
        writes: bool,
    },
    /// A prompt, by name.
    Prompt(&'a str),
    /// A resource, by URI.
    Resource(&'a str),
}

impl<'a> Operation<'a> {
    /// The use of a built-in tool.
    pub fn built_in(tool: &'a BuiltInTool) -> Self {
        Self::Tool { name: tool.name, writes: tool.writes }
    }

    /// The name that patterns are held against.
    pub fn name(self) -> &'a str {
        match self {
            Self::Tool { name, .. } | Self::Prompt(name) | Self::Resource(name) => name,
        }
    }
}

/// A decision, and the rule that it follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A grant allows it.
    Allowed {
        /// The mapping that the grant stands in.
        mapping: MappingReference,
        /// The grant's name.
        grant: String,
        /// Access to Microsoft Graph: as the application where any grant that allows the operation says so.
        graph: GraphAccess,
    },
    /// It is denied, or nothing allows it.
    Refused(Refusal),
}

impl Decision {
    /// Says if the operation may proceed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// The reason why an operation is refused, and the ways in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A deny forbids it, whatever is granted.
    Denied {
        /// The mapping that the deny stands in.
        mapping: MappingReference,
        /// The deny's name.
        deny: String,
        /// True if it is only taken to mean the caller, since the caller's groups are unknown.
        groups_unknown: bool,
        /// True if it is pinned to an app registration, and only taken to hold since the token's audience proves none.
        registration_unknown: bool,
    },
    /// A grant means the caller, whose token lacks scopes: the client can ask for them.
    ScopesMissing {
        /// The mapping that the grant stands in.
        mapping: MappingReference,
        /// The grant's name.
        grant: String,
        /// All scopes that the grant requires, those that the token has among them.
        scopes: BTreeSet<String>,
    },
    /// A grant means the caller, whose sign-in did not satisfy this authentication context.
    AuthenticationContextMissing {
        /// The mapping that the grant stands in.
        mapping: MappingReference,
        /// The grant's name.
        grant: String,
        /// The authentication context, as `c1`.
        context: String,
    },
    /// No grant means the caller.
    NotGranted(Ways),
}

/// The ways in: subjects to which some grant allows an operation that the caller was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// App roles, as far as callers of this kind can have them.
    pub roles: BTreeSet<String>,
    /// Groups (display name, or id where there is none).
    pub groups: BTreeSet<String>,
    /// True if a grant to a group would have been decisive, had the caller's groups been known.
    pub groups_unknown: bool,
    /// True if a grant that is pinned to an app registration was passed over since the token's audience proves none.
    pub registration_unknown: bool,
}

/// Says if the caller is meant by a rule: by a subject of it, and by its registration. Of two that both have to hold,
/// the lower counts; of two of which one has to, the higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Membership {
    No,
    Unknown,
    Yes,
}

impl CompiledPolicy {
    /// Decides about one operation of one caller.
    pub fn decide(&self, caller: &Caller, operation: Operation<'_>) -> Decision {
        match self.denied(caller, operation) {
            Some(denied) => Decision::Refused(denied),
            None => self.granted(caller, operation),
        }
    }

    /// Says if an operation of a caller is allowed, as [`Self::decide`] does, without the reason.
    pub fn allows(&self, caller: &Caller, operation: Operation<'_>) -> bool {
        self.denied(caller, operation).is_none() && self.allowing(caller, operation).is_some()
    }

    /// The first grant of the widest access that allows the operation, whatever is denied.
    fn allowing(&self, caller: &Caller, operation: Operation<'_>) -> Option<&Grant> {
        let means = |grant: &&Grant| {
            grant.allow.grant(operation)
                && caller.could_meet(&grant.require)
                && caller.is_of(grant.registration.as_deref()) == Membership::Yes
                && caller.is_any_of(&grant.to) == Membership::Yes
                && caller.meets(&grant.require)
        };
        let wider = |widest: &'_ Grant, grant: &'_ Grant| widest.graph < grant.graph;
        self.grants.iter().filter(means).fold(None, |widest, grant| match widest {
            Some(widest) if !wider(widest, grant) => Some(widest),
            _ => Some(grant),
        })
    }

    fn denied(&self, caller: &Caller, operation: Operation<'_>) -> Option<Refusal> {
        let matching = self.denies.iter().filter(|deny| deny.forbid.forbid(operation)).filter_map(|deny| {
            let subject = deny.to.as_ref().map_or(Membership::Yes, |to| caller.is_any_of(to));
            let registration = caller.is_of(deny.registration.as_deref());
            let unknown = (subject == Membership::Unknown, registration == Membership::Unknown);
            (subject.min(registration) != Membership::No).then_some((unknown, deny))
        });
        // One that surely means the caller says more than one that may.
        let ((groups_unknown, registration_unknown), deny) = matching.min_by_key(|(unknown, _)| *unknown)?;
        let (mapping, deny) = (deny.mapping.clone(), deny.name.clone());
        Some(Refusal::Denied { mapping, deny, groups_unknown, registration_unknown })
    }

    fn granted(&self, caller: &Caller, operation: Operation<'_>) -> Decision {
        match self.allowing(caller, operation) {
            Some(Grant { mapping, name, graph, .. }) => {
                Decision::Allowed { mapping: mapping.clone(), grant: name.clone(), graph: *graph }
            }
            None => Decision::Refused(self.lack(caller, operation)),
        }
    }

    /// The reason why no grant allows an operation.
    fn lack(&self, caller: &Caller, operation: Operation<'_>) -> Refusal {
        let mut ways = Ways::default();
        let mut nearest: Option<(usize, Refusal)> = None;
        for grant in self.grants.iter().filter(|grant| grant.allow.grant(operation)) {
            if !caller.could_meet(&grant.require) {
                continue;
            }
            // A role or group that another registration's tokens need is no way in for this one.
            let registration = caller.is_of(grant.registration.as_deref());
            if registration != Membership::Yes {
                ways.registration_unknown |= registration == Membership::Unknown;
                continue;
            }
            if caller.is_any_of(&grant.to) != Membership::Yes {
                grant.to.iter().for_each(|subject| ways.add(caller, subject));
                continue;
            }
            match caller.lacks(grant) {
                Some(lack) if nearest.as_ref().is_none_or(|(least, _)| lack.0 < *least) => nearest = Some(lack),
                Some(_) | None => {}
            }
        }
        nearest.map_or(Refusal::NotGranted(ways), |(_, refusal)| refusal)
    }
}

impl Caller {
    fn is_any_of(&self, subjects: &[Subject]) -> Membership {
        subjects.iter().map(|subject| self.is(subject)).max().unwrap_or(Membership::No)
    }

    /// Says if the token is of the registration that a rule is pinned to.
    fn is_of(&self, pinned: Option<&str>) -> Membership {
        match (pinned, &self.registration) {
            (None, _) => Membership::Yes,
            (Some(_), Registration::Unknown) => Membership::Unknown,
            (Some(pinned), Registration::Known(registration)) if pinned == registration => Membership::Yes,
            (Some(_), Registration::Known(_)) => Membership::No,
        }
    }

    fn is(&self, subject: &Subject) -> Membership {
        let member = match (subject, &self.groups) {
            (Subject::AppRole { role, callers }, _) => callers.contains(&self.kind) && self.roles.contains(role),
            // Nobody says of an application which groups it is in.
            (Subject::Group { .. }, _) if self.kind == CallerKind::Application => return Membership::Unknown,
            (Subject::Group { .. }, Groups::Unknown) => return Membership::Unknown,
            (Subject::Group { id, .. }, Groups::AtLeast(groups)) if !groups.contains(id) => return Membership::Unknown,
            (Subject::Group { id, .. }, Groups::Known(groups) | Groups::AtLeast(groups)) => groups.contains(id),
            // A person's client is no subject: anybody can sign in to it.
            (Subject::Application { client_id }, _) => {
                self.kind == CallerKind::Application && self.client_id == *client_id
            }
        };
        if member { Membership::Yes } else { Membership::No }
    }

    /// An application signs in to nothing: its tokens carry neither scopes nor authentication contexts, ever.
    fn could_meet(&self, required: &Requirements) -> bool {
        self.kind == CallerKind::User || required.is_empty()
    }

    fn meets(&self, required: &Requirements) -> bool {
        let context = required.authentication_context.as_ref();
        required.scopes.is_subset(&self.scopes)
            && context.is_none_or(|context| self.authentication_contexts.contains(context))
    }

    /// The number of requirements of a grant that the token does not meet, and the first refusal.
    fn lacks(&self, grant: &Grant) -> Option<(usize, Refusal)> {
        let Requirements { scopes, authentication_context } = &grant.require;
        let missing_scopes = scopes.difference(&self.scopes).count();
        let missing_context =
            authentication_context.as_ref().filter(|context| !self.authentication_contexts.contains(*context));
        let (mapping, name) = (grant.mapping.clone(), grant.name.clone());
        let count = missing_scopes + missing_context.iter().count();
        let refusal = match missing_context {
            _ if missing_scopes > 0 => Refusal::ScopesMissing { mapping, grant: name, scopes: scopes.clone() },
            Some(context) => Refusal::AuthenticationContextMissing { mapping, grant: name, context: context.clone() },
            None => return None,
        };
        Some((count, refusal))
    }
}

impl Ways {
    fn add(&mut self, caller: &Caller, subject: &Subject) {
        match subject {
            Subject::AppRole { role, callers } if callers.contains(&caller.kind) => {
                self.roles.insert(role.clone());
            }
            Subject::Group { id, display_name } if caller.kind == CallerKind::User => {
                self.groups.insert(display_name.as_ref().unwrap_or(id).clone());
                self.groups_unknown |= !matches!(caller.groups, Groups::Known(_));
            }
            Subject::AppRole { .. } | Subject::Group { .. } | Subject::Application { .. } => {}
        }
    }
}
