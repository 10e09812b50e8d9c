//! A session: one person's sign-in through one client, with Entra's tokens. Pure.

use std::collections::BTreeSet;

use mcp_entra_policy::Groups;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::clients::{Client, ClientKind};
use super::scopes::AskedScopes;
use crate::entra::EntraTokens;
use crate::token::{Membership, User};

/// Time after the use of a refresh token in which its successor is given out again, in seconds. An honest client
/// retries if the answer was lost.
pub(super) const RETRY: i64 = 30;

/// The properties of a client that a session needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionClient {
    /// The `client_id`.
    pub(super) id: String,
    /// The short name for tokens and the audit log.
    pub(super) reference: String,
    /// The name for people.
    pub(super) name: String,
    /// The source of the client's metadata.
    pub(super) kind: ClientKind,
}

/// The person, according to Entra's latest token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Person {
    /// The tenant, a GUID in lower case.
    pub(super) tenant_id: String,
    /// The user, a GUID in lower case.
    pub(super) object_id: String,
    /// The account's name, for people.
    pub(super) username: String,
    /// True for a guest of the tenant.
    pub(super) guest: bool,
    /// Scopes of the server's app registration.
    pub(super) scopes: BTreeSet<String>,
    /// App roles.
    pub(super) roles: BTreeSet<String>,
    /// Groups; absent if Entra's token does not list them.
    pub(super) groups: Option<BTreeSet<String>>,
    /// Authentication contexts that the sign-in satisfies.
    pub(super) contexts: BTreeSet<String>,
}

/// An open session.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Session {
    /// The client.
    pub(super) client: SessionClient,
    /// The person.
    pub(super) person: Person,
    /// The scopes that the client requested.
    pub(super) asked: AskedScopes,
    /// Start, in seconds since 1970.
    pub(super) began: i64,
    /// Number of refreshes.
    pub(super) generation: u32,
    /// Time of the last refresh, or else of the start, in seconds since 1970.
    pub(super) refreshed: i64,
    /// The valid refresh token.
    refresh_token: Zeroizing<String>,
    entra_access_token: Zeroizing<String>,
    entra_refresh_token: Option<Zeroizing<String>>,
}

/// The status of a refresh token in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presented {
    /// The current token.
    Current,
    /// A token that was just used; its successor is unused.
    JustUsed,
    /// A token that was used before.
    Reused,
}

impl SessionClient {
    /// Returns the properties of this client.
    pub(super) fn of(client: &Client) -> Self {
        let Client { id, reference, name, kind, .. } = client;
        Self { id: id.clone(), reference: reference.clone(), name: name.clone(), kind: kind.clone() }
    }
}

impl Person {
    /// Returns the user of Entra's verified token, with this name.
    pub(super) fn of(user: &User, username: String) -> Self {
        let groups = match &user.caller.groups {
            Groups::Known(groups) => Some(groups.iter().map(ToString::to_string).collect()),
            Groups::AtLeast(_) | Groups::Unknown => None,
        };
        Self {
            tenant_id: user.tenant_id.clone(),
            object_id: user.object_id.clone(),
            username,
            guest: user.membership == Membership::Guest,
            scopes: names(&user.caller.scopes),
            roles: names(&user.caller.roles),
            groups,
            contexts: names(&user.caller.authentication_contexts),
        }
    }

    /// True for the same user of the same tenant.
    pub(super) fn is(&self, user: &User) -> bool {
        (&self.tenant_id, &self.object_id) == (&user.tenant_id, &user.object_id)
    }
}

impl Session {
    /// Starts a session with these tokens of Entra. It has no refresh token yet.
    pub(super) fn begin(
        client: SessionClient,
        person: Person,
        asked: AskedScopes,
        tokens: &EntraTokens,
        now: i64,
    ) -> Self {
        Self {
            client,
            person,
            asked,
            began: now,
            generation: 0,
            refreshed: now,
            refresh_token: Zeroizing::default(),
            entra_access_token: secret(&tokens.access_token),
            entra_refresh_token: tokens.refresh_token.as_ref().map(secret),
        }
    }

    /// Returns the session after a refresh.
    pub(super) fn refreshed(&self, person: Person, tokens: &EntraTokens, now: i64) -> Self {
        Self {
            person,
            generation: self.generation.saturating_add(1),
            refreshed: now,
            entra_access_token: secret(&tokens.access_token),
            entra_refresh_token: tokens.refresh_token.as_ref().map(secret).or_else(|| self.entra_refresh_token.clone()),
            ..self.clone()
        }
    }

    /// Returns the session with this refresh token.
    pub(super) fn with_refresh_token(self, refresh_token: String) -> Self {
        Self { refresh_token: Zeroizing::new(refresh_token), ..self }
    }

    /// Returns the valid refresh token.
    pub(super) fn refresh_token(&self) -> &str {
        &self.refresh_token
    }

    /// Returns Entra's access token for this server.
    pub(super) fn entra_access_token(&self) -> SecretString {
        SecretString::from(self.entra_access_token.as_str())
    }

    /// Returns Entra's refresh token. Without one, the session ends with its first access token.
    pub(super) fn entra_refresh_token(&self) -> Option<SecretString> {
        self.entra_refresh_token.as_ref().map(|token| SecretString::from(token.as_str()))
    }

    /// Returns the `scope` of a token.
    pub(super) fn scope(&self) -> String {
        self.asked.granted(&self.person.scopes)
    }

    /// Returns the status of a refresh token of this generation at this time.
    pub(super) fn standing(&self, generation: u32, now: i64) -> Presented {
        match self.generation.checked_sub(generation) {
            Some(0) => Presented::Current,
            Some(1) if now.saturating_sub(self.refreshed) <= RETRY => Presented::JustUsed,
            Some(_) | None => Presented::Reused,
        }
    }
}

fn names(names: &[Box<str>]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn secret(token: &SecretString) -> Zeroizing<String> {
    Zeroizing::new(token.expose_secret().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entra::EntraTokens;

    #[test]
    fn a_refresh_token_gets_its_successor_again_for_half_a_minute_while_that_is_unused() {
        let client = SessionClient {
            id: "client".to_owned(),
            reference: "client".to_owned(),
            name: "Client".to_owned(),
            kind: ClientKind::Listed,
        };
        let person = Person {
            tenant_id: "tenant".to_owned(),
            object_id: "alice".to_owned(),
            username: "alice@contoso.com".to_owned(),
            guest: false,
            scopes: [].into(),
            roles: [].into(),
            groups: None,
            contexts: [].into(),
        };
        let tokens = EntraTokens { account: None, access_token: "token".into(), refresh_token: None };
        let begun = Session::begin(client, person.clone(), AskedScopes::default(), &tokens, 1_000);
        assert_eq!(begun.standing(0, 9_000), Presented::Current);
        let once = begun.refreshed(person.clone(), &tokens, 2_000);
        assert_eq!(once.standing(1, 9_000), Presented::Current);
        assert_eq!(once.standing(0, 2_030), Presented::JustUsed);
        assert_eq!(once.standing(0, 2_031), Presented::Reused);
        let twice = once.refreshed(person, &tokens, 2_001);
        assert_eq!(twice.standing(0, 2_001), Presented::Reused, "its successor was used");
        assert_eq!(twice.standing(1, 2_001), Presented::JustUsed);
        assert_eq!(twice.standing(3, 2_001), Presented::Reused, "never issued");
    }
}
