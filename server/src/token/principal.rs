//! Principals: the owners of verified tokens.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mcp_entra_policy::Caller;

use super::assertion::Assertion;
use super::session::SessionOfToken;

/// The owner of a verified token: a person, or an application by itself.
#[derive(Debug)]
pub enum Principal {
    /// A person, through a client.
    User(User),
    /// An application by itself.
    Application(Application),
    /// The person who runs this program.
    LocalUser(LocalUser),
}

/// A person who uses a client: a delegated access token.
#[derive(Debug)]
pub struct User {
    /// Content of the token, which requests with the same token share.
    pub profile: Arc<Profile>,
    /// The token itself.
    pub assertion: Assertion,
}

/// Content of a delegated access token.
#[derive(Debug)]
pub struct Profile {
    /// `tid`: the tenant, a GUID in lower case.
    pub tenant_id: String,
    /// `oid`: the user in that tenant, a GUID in lower case.
    pub object_id: String,
    /// The user's relation to the tenant.
    pub membership: Membership,
    /// Facts for the policy. The scopes include at least one required scope.
    pub caller: Arc<Caller>,
    /// True if the client declared (`xms_cc` with `cp1`) that it can answer a claims challenge.
    pub accepts_claims_challenge: bool,
    /// `exp`: end of the token, in seconds since 1970.
    pub expires_at: u64,
}

/// A user's relation to the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// A user of the tenant itself.
    Member,
    /// An invited user from elsewhere.
    Guest,
}

/// An application by itself: content of an app-only access token.
#[derive(Debug)]
pub struct Application {
    /// `tid`: the tenant, a GUID in lower case.
    pub tenant_id: String,
    /// `oid`: the application's service principal in that tenant, a GUID in lower case.
    pub object_id: String,
    /// Facts for the policy. Its roles (application permissions) are never empty.
    pub caller: Arc<Caller>,
    /// `exp`: end of the token, in seconds since 1970.
    pub expires_at: u64,
}

/// The person who runs this program and signed in to it. Nobody else can send it messages.
#[derive(Debug)]
pub struct LocalUser {
    /// The account, once it is known. The person may have to sign in first.
    pub account: Arc<OnceLock<Account>>,
    /// Facts for the policy.
    pub caller: Arc<Caller>,
}

/// The account that signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `tid`: the tenant, a GUID in lower case.
    pub tenant_id: String,
    /// `oid`: the user in that tenant, a GUID in lower case.
    pub object_id: String,
    /// `preferred_username`: for people, and as a hint for the next sign-in. No decision depends on it.
    pub username: String,
}

impl Deref for User {
    type Target = Profile;

    fn deref(&self) -> &Profile {
        &self.profile
    }
}

impl Account {
    /// True for the same user of the same tenant; the name does not count.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.tenant_id, &self.object_id) == (&other.tenant_id, &other.object_id)
    }
}

impl Principal {
    /// Returns the tenant, a GUID in lower case. Empty while a person's account is unknown.
    pub fn tenant_id(&self) -> &str {
        match self {
            Self::LocalUser(user) => user.account.get().map_or("", |account| &account.tenant_id),
            Self::User(user) => &user.tenant_id,
            Self::Application(application) => &application.tenant_id,
        }
    }

    /// Returns the user or the application's service principal, a GUID in lower case. Empty while a person's account
    /// is unknown.
    pub fn object_id(&self) -> &str {
        match self {
            Self::LocalUser(user) => user.account.get().map_or("", |account| &account.object_id),
            Self::User(user) => &user.object_id,
            Self::Application(application) => &application.object_id,
        }
    }

    /// Returns the client that sent the token, a GUID in lower case.
    pub fn client_id(&self) -> &str {
        &self.caller().client_id
    }

    /// Returns the session of the token at the own authorization server, or none for a token of Entra.
    pub fn session(&self) -> Option<&SessionOfToken> {
        match self {
            Self::User(user) => user.assertion.session(),
            Self::Application(_) | Self::LocalUser(_) => None,
        }
    }

    /// Returns the end of the token, in seconds since 1970.
    pub(super) fn expires_at(&self) -> u64 {
        match self {
            Self::User(user) => user.expires_at,
            Self::Application(application) => application.expires_at,
            Self::LocalUser(_) => u64::MAX,
        }
    }

    /// Returns the time until the end of the token.
    pub fn remaining(&self) -> Duration {
        Duration::from_secs(self.expires_at().saturating_sub(super::now()))
    }

    /// True if the caller can answer a claims challenge.
    pub fn accepts_claims_challenge(&self) -> bool {
        matches!(self, Self::User(user) if user.accepts_claims_challenge)
    }

    /// Returns the facts for the policy.
    pub fn caller(&self) -> &Arc<Caller> {
        match self {
            Self::User(user) => &user.caller,
            Self::Application(application) => &application.caller,
            Self::LocalUser(user) => &user.caller,
        }
    }
}
