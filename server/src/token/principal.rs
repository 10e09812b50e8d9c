//! Principals: those whom verified tokens speak for.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mcp_entra_policy::Caller;

use super::assertion::Assertion;
use super::session::SessionOfToken;

/// The one whom a verified token speaks for: a person, or an application without one.
#[derive(Debug)]
pub enum Principal {
    /// A person, through a client.
    User(User),
    /// An application by itself.
    Application(Application),
    /// The person who runs this program.
    LocalUser(LocalUser),
}

/// A person, through a client: content of a delegated access token.
#[derive(Debug)]
pub struct User {
    /// `tid`: the tenant, a GUID in lower case.
    pub tenant_id: String,
    /// `oid`: the user in that tenant, a GUID in lower case.
    pub object_id: String,
    /// Relation of the user to the tenant.
    pub membership: Membership,
    /// Facts that the policy decides by. At least one of the required scopes is among its scopes.
    pub caller: Arc<Caller>,
    /// True if the client declared (`xms_cc` with `cp1`) that it can answer a claims challenge.
    pub accepts_claims_challenge: bool,
    /// The token itself.
    pub assertion: Assertion,
    /// `exp`: end of the token, in seconds since 1970.
    pub expires_at: u64,
}

/// Relation of a user to the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// One of the tenant's own users.
    Member,
    /// A user of somewhere else who was invited.
    Guest,
}

/// An application by itself: content of an app-only access token.
#[derive(Debug)]
pub struct Application {
    /// `tid`: the tenant, a GUID in lower case.
    pub tenant_id: String,
    /// `oid`: the application's service principal in that tenant, a GUID in lower case.
    pub object_id: String,
    /// Facts that the policy decides by. Its roles, the application permissions, are never empty.
    pub caller: Arc<Caller>,
    /// `exp`: end of the token, in seconds since 1970.
    pub expires_at: u64,
}

/// The person who runs this program, by a sign-in of their own. Nobody else can send it a message.
#[derive(Debug)]
pub struct LocalUser {
    /// The account, once it is known: the person may have to sign in first.
    pub account: Arc<OnceLock<Account>>,
    /// Facts that the policy decides by.
    pub caller: Arc<Caller>,
}

/// The account that signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `tid`: the tenant, a GUID in lower case.
    pub tenant_id: String,
    /// `oid`: the user in that tenant, a GUID in lower case.
    pub object_id: String,
    /// `preferred_username`: for people, and as a hint for the next sign-in. It decides nothing.
    pub username: String,
}

impl Account {
    /// True if this is the same user of the same tenant, whatever the name.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.tenant_id, &self.object_id) == (&other.tenant_id, &other.object_id)
    }
}

impl Principal {
    /// The tenant, a GUID in lower case. Empty while a person's account is not known.
    pub fn tenant_id(&self) -> &str {
        match self {
            Self::LocalUser(user) => user.account.get().map_or("", |account| &account.tenant_id),
            Self::User(user) => &user.tenant_id,
            Self::Application(application) => &application.tenant_id,
        }
    }

    /// The user, or the application's service principal: a GUID in lower case. Empty while a person's account is not known.
    pub fn object_id(&self) -> &str {
        match self {
            Self::LocalUser(user) => user.account.get().map_or("", |account| &account.object_id),
            Self::User(user) => &user.object_id,
            Self::Application(application) => &application.object_id,
        }
    }

    /// The client that sent the token: a GUID in lower case.
    pub fn client_id(&self) -> &str {
        &self.caller().client_id
    }

    /// The session of this server's own authorization server that the token is of. Absent for a token of Entra.
    pub fn session(&self) -> Option<&SessionOfToken> {
        match self {
            Self::User(user) => user.assertion.session(),
            Self::Application(_) | Self::LocalUser(_) => None,
        }
    }

    /// End of the token, in seconds since 1970.
    pub(super) fn expires_at(&self) -> u64 {
        match self {
            Self::User(user) => user.expires_at,
            Self::Application(application) => application.expires_at,
            Self::LocalUser(_) => u64::MAX,
        }
    }

    /// Time until the end of the token.
    pub fn remaining(&self) -> Duration {
        Duration::from_secs(self.expires_at().saturating_sub(super::now()))
    }

    /// True if the caller can answer a claims challenge.
    pub fn accepts_claims_challenge(&self) -> bool {
        matches!(self, Self::User(user) if user.accepts_claims_challenge)
    }

    /// Facts that the policy decides by.
    pub fn caller(&self) -> &Arc<Caller> {
        match self {
            Self::User(user) => &user.caller,
            Self::Application(application) => &application.caller,
            Self::LocalUser(user) => &user.caller,
        }
    }
}
