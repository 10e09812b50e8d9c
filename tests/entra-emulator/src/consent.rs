//! Consent: scopes of a resource that a client has from a user, or from an administrator for all users.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::{
    configuration::{App, Consent, User},
    errors::Aadsts,
    resource::{GRAPH_APP_ID, Requested, Resource},
    state::{Bounded, Shared, TenantState},
};

/// All consents from the run of the emulator. Those of the configuration are separate.
#[derive(Default)]
pub(crate) struct Consents(Bounded<BTreeMap<String, BTreeSet<String>>>);

/// A client, and the user who consents. Without a user, the consent is for all users of the tenant.
#[derive(Clone, Copy)]
pub(crate) struct Party {
    pub(crate) tenant: Uuid,
    pub(crate) client: Uuid,
    pub(crate) user: Option<Uuid>,
}

impl Party {
    fn key(self) -> String {
        let user = self.user.map_or_else(|| "everybody".to_owned(), |user| user.to_string());
        format!("{} {} {user}", self.tenant, self.client)
    }

    fn everybody(self) -> Self {
        Self { user: None, ..self }
    }
}

impl Consents {
    /// Adds scopes of a resource, given by its application id.
    fn add(&mut self, party: Party, resource: String, scopes: Vec<String>) {
        let key = party.key();
        if self.0.get(&key).is_none() {
            self.0.insert(key.clone(), BTreeMap::new());
        }
        if let Some(resources) = self.0.get_mut(&key) {
            resources.entry(resource).or_default().extend(scopes);
        }
    }

    /// Adds all requested scopes. Scopes of OpenID Connect count as scopes of Graph.
    pub(crate) fn grant(&mut self, party: Party, client: &App, asked: &[Requested<'_>]) {
        for requested in asked {
            self.add(party, requested.resource.id(), requested.asked_by(client));
            self.add(party, GRAPH_APP_ID.to_owned(), requested.openid.clone());
        }
    }

    /// Forgets all consents of this party.
    pub(crate) fn withdraw(&mut self, party: Party) {
        self.0.remove(&party.key());
    }

    fn any(&self, party: Party) -> bool {
        [party, party.everybody()].iter().any(|party| self.0.get(&party.key()).is_some())
    }

    fn scopes(&self, party: Party, resource: &str) -> BTreeSet<String> {
        let parties = [party, party.everybody()];
        let found = parties.iter().filter_map(|party| self.0.get(&party.key())?.get(resource));
        found.flatten().cloned().collect()
    }
}

/// One user's consents to one client.
#[derive(Clone, Copy)]
pub(crate) struct Consented<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) tenant: &'a TenantState,
    pub(crate) client: &'a App,
    pub(crate) user: &'a User,
}

impl Consented<'_> {
    pub(crate) fn party(&self) -> Party {
        Party { tenant: self.tenant.directory.id, client: self.client.client_id, user: Some(self.user.oid) }
    }

    /// All scopes of a resource that the client has, from the user, an administrator or the resource itself.
    pub(crate) fn scopes(&self, resource: Resource<'_>) -> Vec<String> {
        let mut all: Vec<String> = match resource {
            Resource::Graph => self.client.granted_graph_scopes.clone(),
            Resource::App(app) if app.pre_authorized_clients.contains(&self.client.client_id) => app.scopes.clone(),
            Resource::App(_) => Vec::new(),
        };
        let given = self.shared.lock().consents.scopes(self.party(), &resource.id());
        all.extend(given.into_iter().filter(|scope| !crate::resource::is_openid(scope)));
        let mut known = BTreeSet::new();
        all.retain(|scope| known.insert(scope.clone()));
        all
    }

    /// Returns whether a consent is missing. As in Entra, any other consent includes the scopes of OpenID Connect.
    pub(crate) fn lacks(&self, asked: &[Requested<'_>]) -> bool {
        let any = !self.client.granted_graph_scopes.is_empty() || self.shared.lock().consents.any(self.party());
        asked.iter().any(|requested| self.lacks_scope(requested) || (!any && !requested.openid.is_empty()))
    }

    /// Any consent is enough for `.default`.
    fn lacks_scope(&self, requested: &Requested<'_>) -> bool {
        let given = self.scopes(requested.resource);
        (requested.default && given.is_empty()) || requested.scopes.iter().any(|scope| !given.contains(scope))
    }

    /// Scopes of a token for the user. If the sign-in implies consent, these are the requested ones. Otherwise all
    /// scopes with consent are included, as Entra does for any request.
    pub(crate) fn for_token(&self, requested: &Requested<'_>) -> Result<Vec<String>, Aadsts> {
        match self.client.consent {
            Consent::OnSignIn => Ok(requested.asked_by(self.client)),
            Consent::Ask | Consent::AdminOnly if self.lacks_scope(requested) => Err(self.required()),
            Consent::Ask | Consent::AdminOnly => Ok(self.scopes(requested.resource)),
        }
    }

    pub(crate) fn required(&self) -> Aadsts {
        Aadsts::ConsentRequired { client: self.client.client_id, name: self.client.display_name.clone() }
    }
}
