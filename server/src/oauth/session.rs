//! A session: one person's sign-in through one client, with Entra's tokens behind it. Pure.

use std::collections::BTreeSet;

use mcp_entra_policy::Groups;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::clients::{Client, ClientKind};
use super::scopes::AskedScopes;
use crate::entra::EntraTokens;
use crate::token::{Membership, User};

/// Time in which a refresh token that was just used still gets its successor, in seconds: an honest client whose answer was
/// lost sends it again.
pub(super) const RETRY: i64 = 30;

/// A client, as far as a session needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionClient {
    /// Its `client_id`.
    pub(super) id: String,
    /// Its short name, for tokens and the audit log.
    pub(super) reference: String,
    /// Its name, for people.
    pub(super) name: String,
    /// The source of what is known of it.
    pub(super) kind: ClientKind,
}

/// The person, as Entra's latest token says.
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
    /// Groups; absent where Entra's token does not list them.
    pub(super) groups: Option<BTreeSet<String>>,
    /// Authentication contexts that the sign-in satisfied.
    pub(super) contexts: BTreeSet<String>,
}

/// A session that is open.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Session {
    /// The client.
    pub(super) client: SessionClient,
    /// The person.
    pub(super) person: Person,
    /// The scopes that the client asked for.
    pub(super) asked: AskedScopes,
    /// Begin, in seconds since 1970.
    pub(super) began: i64,
    /// Number of refreshes.
    pub(super) generation: u32,
    /// Time of the last refresh, or the begin, in seconds since 1970.
    pub(super) refreshed: i64,
    /// The refresh token that is good now.
    refresh_token: Zeroizing<String>,
    entra_access_token: Zeroizing<String>,
    entra_refresh_token: Option<Zeroizing<String>>,
}

/// The part of a session that a refresh token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presented {
    /// It is the current one.
    Current,
    /// It was used a moment ago, and its successor was not.
    JustUsed,
    /// It was used before.
    Reused,
}

impl SessionClient {
    /// This client.
    pub(super) fn of(client: &Client) -> Self {
        let Client { id, reference, name, kind, .. } = client;
        Self { id: id.clone(), reference: reference.clone(), name: name.clone(), kind: kind.clone() }
    }
}

impl Person {
    /// The user of Entra's verified token, with this name.
    pub(super) fn of(user: &User, username: String) -> Self {
        let groups = match &user.caller.groups {
            Groups::Known(groups) => Some(groups.clone()),
            Groups::AtLeast(_) | Groups::Unknown => None,
        };
        Self {
            tenant_id: user.tenant_id.clone(),
            object_id: user.object_id.clone(),
            username,
            guest: user.membership == Membership::Guest,
            scopes: user.caller.scopes.clone(),
            roles: user.caller.roles.clone(),
            groups,
            contexts: user.caller.authentication_contexts.clone(),
        }
    }

    /// True if this is the same user of the same tenant.
    pub(super) fn is(&self, user: &User) -> bool {
        (&self.tenant_id, &self.object_id) == (&user.tenant_id, &user.object_id)
    }
}

impl Session {
    /// A session that begins now, with these tokens of Entra. It has no refresh token yet.
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

    /// The same session after a refresh now.
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

    /// The same session, whose current refresh token is this.
    pub(super) fn with_refresh_token(self, refresh_token: String) -> Self {
        Self { refresh_token: Zeroizing::new(refresh_token), ..self }
    }

    /// The refresh token that is good now.
    pub(super) fn refresh_token(&self) -> &str {
        &self.refresh_token
    }

    /// Entra's access token for this server.
    pub(super) fn entra_access_token(&self) -> SecretString {
        SecretString::from(self.entra_access_token.as_str())
    }

    /// Entra's refresh token. Absent where Entra issued none: then the session ends with its first access token.
    pub(super) fn entra_refresh_token(&self) -> Option<SecretString> {
        self.entra_refresh_token.as_ref().map(|token| SecretString::from(token.as_str()))
    }

    /// The `scope` of a token.
    pub(super) fn scope(&self) -> String {
        self.asked.granted(&self.person.scopes)
    }

    /// Standing of a refresh token of this generation at this time.
    pub(super) fn standing(&self, generation: u32, now: i64) -> Presented {
        match self.generation.checked_sub(generation) {
            Some(0) => Presented::Current,
            Some(1) if now.saturating_sub(self.refreshed) <= RETRY => Presented::JustUsed,
            Some(_) | None => Presented::Reused,
        }
    }
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
