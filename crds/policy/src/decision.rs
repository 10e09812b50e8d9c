//! Evaluation of the compiled policy: the decision about an operation of a caller, with its reason.
//!
//! Membership of a caller in a subject is yes, no or unknown, and so is the match of an app registration. Unknown never
//! satisfies a grant and always satisfies a deny. Any matching deny takes precedence. Otherwise a grant allows the
//! operation if its subject and registration are yes and its requirements are met. Everything else is refused.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::{
    BuiltInTool, CallerKind, CompactSet, CompiledPolicy, Grant, GraphAccess, MappingReference, Registration,
    Requirements, Subject,
};

/// Properties of a caller that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Kind of the caller.
    pub kind: CallerKind,
    /// App registration that the token was issued for. Roles and scopes belong to it.
    pub registration: Registration,
    /// Client id (`azp` or `appid`) of the user's client, or of the calling application. A GUID in lower case.
    pub client_id: String,
    /// Values of the `roles` claim.
    pub roles: CompactSet<Box<str>>,
    /// Groups of the caller, as far as known.
    pub groups: Groups,
    /// Scopes in the `scp` claim. Empty for an application.
    pub scopes: CompactSet<Box<str>>,
    /// Authentication contexts of Conditional Access that the sign-in satisfied, from the `acrs` claim.
    pub authentication_contexts: CompactSet<Box<str>>,
}

/// Groups of the caller, as far as known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Object ids of all groups.
    Known(CompactSet<Uuid>),
    /// Object ids of some groups. There may be others.
    AtLeast(CompactSet<Uuid>),
    /// The groups are unknown: the claim is absent, lists names, or is replaced by an overage indicator. This never
    /// means "no groups".
    Unknown,
}

/// Use of a tool, prompt or resource, or its entry in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Tool.
    Tool {
        /// Name of the tool.
        name: &'a str,
        /// True if the tool may change data. This is also true for every tool of a backend without a pin, since the
        /// backend's own description is not trusted.
        writes: bool,
    },
    /// Prompt, by name.
    Prompt(&'a str),
    /// Resource, by URI.
    Resource(&'a str),
}

impl<'a> Operation<'a> {
    /// Returns the use of a built-in tool.
    pub fn built_in(tool: &'a BuiltInTool) -> Self {
        Self::Tool { name: tool.name, writes: tool.writes }
    }

    /// Returns the name that patterns are compared with.
    pub fn name(self) -> &'a str {
        match self {
            Self::Tool { name, .. } | Self::Prompt(name) | Self::Resource(name) => name,
        }
    }
}

/// Decision about an operation, with the rule behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A grant allows the operation.
    Allowed {
        /// Mapping that contains the grant.
        mapping: MappingReference,
        /// Name of the grant.
        grant: String,
        /// Access to Microsoft Graph. It is `Application` if any grant that allows the operation says so.
        graph: GraphAccess,
    },
    /// A deny forbids the operation, or no grant allows it.
    Refused(Refusal),
}

impl Decision {
    /// Returns whether the operation may proceed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// Reason of a refusal, and the subjects that have access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A deny forbids the operation, regardless of grants.
    Denied {
        /// Mapping that contains the deny.
        mapping: MappingReference,
        /// Name of the deny.
        deny: String,
        /// True if the deny applies only because the caller's groups are unknown.
        groups_unknown: bool,
        /// True if the deny applies only because the token's audience does not prove an app registration.
        registration_unknown: bool,
    },
    /// A grant matches the caller, but the token lacks scopes. The client can request them.
    ScopesMissing {
        /// Mapping that contains the grant.
        mapping: MappingReference,
        /// Name of the grant.
        grant: String,
        /// All scopes that the grant requires, including those in the token.
        scopes: BTreeSet<String>,
    },
    /// A grant matches the caller, but the sign-in did not satisfy this authentication context.
    AuthenticationContextMissing {
        /// Mapping that contains the grant.
        mapping: MappingReference,
        /// Name of the grant.
        grant: String,
        /// Authentication context, such as `c1`.
        context: String,
    },
    /// No grant matches the caller.
    NotGranted(Ways),
}

/// Subjects that have access to an operation which the caller was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// App roles that callers of this kind can have.
    pub roles: BTreeSet<String>,
    /// Groups, by display name, or by id if there is none.
    pub groups: BTreeSet<String>,
    /// True if a grant to a group might have allowed the operation, but the caller's groups are unknown.
    pub groups_unknown: bool,
    /// True if a grant did not apply because the token's audience does not prove an app registration.
    pub registration_unknown: bool,
}

/// Match of a caller with a rule, by its subjects and its registration. If both must match, the lower value counts. If
/// one is enough, the higher value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Membership {
    No,
    Unknown,
    Yes,
}

impl CompiledPolicy {
    /// Decides about an operation of a caller.
    pub fn decide(&self, caller: &Caller, operation: Operation<'_>) -> Decision {
        match self.denied(caller, operation) {
            Some(denied) => Decision::Refused(denied),
            None => self.granted(caller, operation),
        }
    }

    /// Returns whether an operation of a caller is allowed. Equivalent to [`Self::decide`], without the reason.
    pub fn allows(&self, caller: &Caller, operation: Operation<'_>) -> bool {
        self.denied(caller, operation).is_none() && self.allowing(caller, operation).is_some()
    }

    /// Returns the first grant with the widest access that allows the operation. Denies are not considered.
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
        // A deny that certainly matches the caller explains more than one that may match.
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

    /// Returns the reason why no grant allows an operation.
    fn lack(&self, caller: &Caller, operation: Operation<'_>) -> Refusal {
        let mut ways = Ways::default();
        let mut nearest: Option<(usize, Refusal)> = None;
        for grant in self.grants.iter().filter(|grant| grant.allow.grant(operation)) {
            if !caller.could_meet(&grant.require) {
                continue;
            }
            // Roles and groups of another registration do not help this token.
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

impl Groups {
    /// Returns the object ids of the known groups, sorted.
    pub fn ids(&self) -> &[Uuid] {
        match self {
            Self::Known(ids) | Self::AtLeast(ids) => ids,
            Self::Unknown => &[],
        }
    }

    /// Returns whether the group with this object id is one of the known groups.
    pub fn list(&self, id: &str) -> bool {
        Uuid::try_parse(id).is_ok_and(|id| self.ids().binary_search(&id).is_ok())
    }
}

impl Caller {
    fn is_any_of(&self, subjects: &[Subject]) -> Membership {
        subjects.iter().map(|subject| self.is(subject)).max().unwrap_or(Membership::No)
    }

    /// Returns whether the token was issued for the registration that a rule is pinned to.
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
            (Subject::AppRole { role, callers }, _) => {
                callers.contains(&self.kind) && self.roles.contains(role.as_str())
            }
            // The groups of an application are never known.
            (Subject::Group { .. }, _) if self.kind == CallerKind::Application => return Membership::Unknown,
            (Subject::Group { id, .. }, groups) if groups.list(id) => true,
            (Subject::Group { .. }, Groups::Known(_)) => false,
            (Subject::Group { .. }, Groups::AtLeast(_) | Groups::Unknown) => return Membership::Unknown,
            // The client of a user is not a subject, since anybody can sign in to it.
            (Subject::Application { client_id }, _) => {
                self.kind == CallerKind::Application && self.client_id == *client_id
            }
        };
        if member { Membership::Yes } else { Membership::No }
    }

    /// Returns whether a caller of this kind can meet the requirements. Tokens of applications never contain scopes or
    /// authentication contexts.
    fn could_meet(&self, required: &Requirements) -> bool {
        self.kind == CallerKind::User || required.is_empty()
    }

    fn meets(&self, required: &Requirements) -> bool {
        let context = required.authentication_context.as_ref();
        self.missing_scopes(required).next().is_none()
            && context.is_none_or(|context| self.authentication_contexts.contains(context.as_str()))
    }

    fn missing_scopes<'a>(&self, required: &'a Requirements) -> impl Iterator<Item = &'a String> {
        required.scopes.iter().filter(|scope| !self.scopes.contains(scope.as_str()))
    }

    /// Returns the number of requirements of a grant that the token does not meet, and the first refusal.
    fn lacks(&self, grant: &Grant) -> Option<(usize, Refusal)> {
        let Requirements { scopes, authentication_context } = &grant.require;
        let missing_scopes = self.missing_scopes(&grant.require).count();
        let missing_context =
            authentication_context.as_ref().filter(|context| !self.authentication_contexts.contains(context.as_str()));
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
