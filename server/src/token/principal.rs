//! Who a verified token speaks for.

use std::collections::BTreeSet;

use mcp_entra_policy::{Caller, CallerKind, Groups, Registration};
use secrecy::SecretString;

/// Who a verified token speaks for: a person, or an application without one.
#[derive(Debug)]
pub enum Principal {
    /// A person, through a client.
    User(User),
    /// An application by itself.
    Application(Application),
}

/// A person, through a client: what a delegated access token says.
#[derive(Debug)]
pub struct User {
    /// `tid`: the tenant, a GUID in lower case.
    pub tenant_id: String,
    /// `oid`: the user in that tenant, a GUID in lower case.
    pub object_id: String,
    /// `aud`: the app registration that the token was issued for.
    pub registration: Registration,
    /// Whether the user is the tenant's own or a guest in it.
    pub membership: Membership,
    /// `azp` or `appid`: the client that the user signed in to, a GUID in lower case.
    pub client_id: String,
    /// `scp`: what the client may do for the user; at least one of the required scopes is among them.
    pub scopes: BTreeSet<String>,
    /// `roles`: the user's app roles.
    pub roles: BTreeSet<String>,
    /// `groups`, unless the claim is absent or stands for too many groups.
    pub groups: Groups,
    /// `acrs`: the authentication contexts of Conditional Access that the sign-in satisfied.
    pub authentication_contexts: BTreeSet<String>,
    /// Whether the client declared (`xms_cc` with `cp1`) that it can answer a claims challenge.
    pub accepts_claims_challenge: bool,
    /// The token itself: the assertion of an on-behalf-of exchange.
    pub assertion: SecretString,
    /// `exp`: when the token expires, in seconds since 1970.
    pub expires_at: u64,
}

/// How a user belongs to the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// One of the tenant's own users.
    Member,
    /// A user of somewhere else who was invited.
    Guest,
}

/// An application by itself: what an app-only access token says.
#[derive(Debug)]
pub struct Application {
    /// `tid`: the tenant, a GUID in lower case.
    pub tenant_id: String,
    /// `oid`: the application's service principal in that tenant, a GUID in lower case.
    pub object_id: String,
    /// `aud`: the app registration that the token was issued for.
    pub registration: Registration,
    /// `azp` or `appid`: the application, a GUID in lower case.
    pub client_id: String,
    /// `roles`: the application permissions; never empty.
    pub roles: BTreeSet<String>,
    /// `exp`: when the token expires, in seconds since 1970.
    pub expires_at: u64,
}

impl Principal {
    /// The tenant, a GUID in lower case.
    pub fn tenant_id(&self) -> &str {
        match self {
            Self::User(user) => &user.tenant_id,
            Self::Application(application) => &application.tenant_id,
        }
    }

    /// The user, or the application's service principal: a GUID in lower case.
    pub fn object_id(&self) -> &str {
        match self {
            Self::User(user) => &user.object_id,
            Self::Application(application) => &application.object_id,
        }
    }

    /// The client that sent the token: a GUID in lower case.
    pub fn client_id(&self) -> &str {
        match self {
            Self::User(user) => &user.client_id,
            Self::Application(application) => &application.client_id,
        }
    }

    /// When the token expires, in seconds since 1970.
    pub(super) fn expires_at(&self) -> u64 {
        match self {
            Self::User(user) => user.expires_at,
            Self::Application(application) => application.expires_at,
        }
    }

    /// Whether the caller can answer a claims challenge.
    pub fn accepts_claims_challenge(&self) -> bool {
        matches!(self, Self::User(user) if user.accepts_claims_challenge)
    }

    /// What the policy decides by.
    pub fn caller(&self) -> Caller {
        match self {
            Self::User(user) => Caller {
                kind: CallerKind::User,
                registration: user.registration.clone(),
                client_id: user.client_id.clone(),
                roles: user.roles.clone(),
                groups: user.groups.clone(),
                scopes: user.scopes.clone(),
                authentication_contexts: user.authentication_contexts.clone(),
            },
            Self::Application(application) => Caller {
                kind: CallerKind::Application,
                registration: application.registration.clone(),
                client_id: application.client_id.clone(),
                roles: application.roles.clone(),
                // Nothing is read of an application's groups.
                groups: Groups::Unknown,
                scopes: BTreeSet::new(),
                authentication_contexts: BTreeSet::new(),
            },
        }
    }
}
