//! Meaning of a `scope` parameter: scopes of one resource (of several at the authorization endpoint), and scopes of
//! OpenID Connect itself.

use uuid::Uuid;

use crate::{
    configuration::{App, Tenant},
    errors::Aadsts,
};

/// Microsoft Graph's application id.
pub(crate) const GRAPH_APP_ID: &str = "00000003-0000-0000-c000-000000000000";
/// Microsoft Graph's resource identifier in the public cloud.
pub(crate) const GRAPH_URL: &str = "https://graph.microsoft.com";

/// Existing delegated scopes of Graph. Scopes granted to an app exist, too.
const GRAPH_SCOPES: &[&str] = &[
    "Calendars.Read",
    "Calendars.ReadWrite",
    "Chat.Read",
    "Contacts.Read",
    "Directory.Read.All",
    "Files.Read",
    "Files.Read.All",
    "Files.ReadWrite",
    "Group.Read.All",
    "GroupMember.Read.All",
    "Mail.Read",
    "Mail.ReadBasic",
    "Mail.ReadWrite",
    "Mail.Send",
    "Member.Read.Hidden",
    "Notes.Read",
    "People.Read",
    "Sites.Read.All",
    "Tasks.Read",
    "Tasks.ReadWrite",
    "User.Read",
    "User.Read.All",
    "User.ReadBasic.All",
    "User.ReadWrite",
];

const OPENID_SCOPES: &[&str] = &["openid", "profile", "email", "offline_access"];

/// Resource of an access token.
#[derive(Clone, Copy)]
pub(crate) enum Resource<'t> {
    Graph,
    App(&'t App),
}

impl Resource<'_> {
    /// The application id.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Graph => GRAPH_APP_ID.to_owned(),
            Self::App(app) => app.client_id.to_string(),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Graph, Self::Graph) => true,
            (Self::App(one), Self::App(two)) => one.client_id == two.client_id,
            _ => false,
        }
    }
}

/// A parsed `scope` parameter.
pub(crate) struct Requested<'t> {
    pub(crate) resource: Resource<'t>,
    /// The resource as in the request: `https://graph.microsoft.com`, `api://…`; empty for bare scopes.
    pub(crate) named: String,
    /// Scopes without the resource.
    pub(crate) scopes: Vec<String>,
    /// `.default`: all scopes with consent.
    pub(crate) default: bool,
    /// Requested scopes among `openid`, `profile`, `email` and `offline_access`.
    pub(crate) openid: Vec<String>,
}

impl<'t> Requested<'t> {
    /// Parses `scope` for a client of `tenant`. `graph` is the URL of the emulated Graph.
    pub(crate) fn parse(scope: &str, tenant: &'t Tenant, graph: &str) -> Result<Self, Aadsts> {
        let mut all = Self::parse_all(scope, tenant, graph)?;
        match all.pop() {
            Some(only) if all.is_empty() => Ok(only),
            _ => Err(Aadsts::SeveralResources(scope.to_owned())),
        }
    }

    /// Same as [`Self::parse`], for each of several resources in the order of the request; never empty.
    pub(crate) fn parse_all(scope: &str, tenant: &'t Tenant, graph: &str) -> Result<Vec<Self>, Aadsts> {
        let mut openid = Vec::new();
        let mut all: Vec<Self> = Vec::new();
        for item in scope.split_ascii_whitespace() {
            if is_openid(item) {
                openid.push(item.to_owned());
                continue;
            }
            // Bare scopes belong to Graph. Identifier URIs may end in a slash, so the last one divides.
            let (named, name) = item.rsplit_once('/').unwrap_or(("", item));
            let resource = find(named, tenant, graph).ok_or_else(|| Aadsts::ResourceUnknown(named.to_owned()))?;
            match all.iter_mut().find(|known| known.resource.is(&resource)) {
                Some(known) => known.scopes.push(name.to_owned()),
                None => all.push(Self { scopes: vec![name.to_owned()], ..Self::none_of(resource, named) }),
            }
        }
        if all.is_empty() {
            all.push(Self::none_of(Resource::Graph, ""));
        }
        for requested in &mut all {
            requested.openid.clone_from(&openid);
            requested.default = contains(&requested.scopes, ".default");
            if requested.default && requested.scopes.len() > 1 {
                return Err(Aadsts::ScopeInvalid("scope", scope.to_owned()));
            }
            requested.scopes.retain(|name| name != ".default");
            requested.check_that_scopes_exist(tenant)?;
        }
        Ok(all)
    }

    fn none_of(resource: Resource<'t>, named: &str) -> Self {
        Self { resource, named: named.to_owned(), scopes: Vec::new(), default: false, openid: Vec::new() }
    }

    /// Refuses a client that requests a token for itself and names itself by an App ID URI.
    pub(crate) fn check_that_itself_is_a_guid(&self, client: &App) -> Result<(), Aadsts> {
        match self.resource {
            Resource::App(app) if app.client_id == client.client_id && Uuid::parse_str(&self.named).is_err() => {
                Err(Aadsts::TokenForItself { client: client.client_id, name: client.display_name.clone() })
            }
            _ => Ok(()),
        }
    }

    fn check_that_scopes_exist(&self, tenant: &Tenant) -> Result<(), Aadsts> {
        let exists = |scope: &str| match self.resource {
            Resource::Graph => {
                GRAPH_SCOPES.contains(&scope)
                    || tenant.apps.iter().any(|app| contains(&app.granted_graph_scopes, scope))
            }
            Resource::App(app) => contains(&app.scopes, scope),
        };
        match self.scopes.iter().find(|scope| !exists(scope)) {
            None => Ok(()),
            Some(scope) => Err(Aadsts::ScopeUnknown { scope: scope.clone(), resource: self.resource.id() }),
        }
    }

    /// RFC 8707: `resource`, if present, must be an identifier of the scope's resource. The comparison is exact.
    pub(crate) fn check_resource_parameter(&self, resource: Option<&str>) -> Result<(), Aadsts> {
        match resource {
            Some(resource) if !self.is_identified_by(resource) => {
                Err(Aadsts::ResourceMismatch { resource: resource.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the value is an identifier of the resource. The comparison is exact.
    pub(crate) fn is_identified_by(&self, resource: &str) -> bool {
        match self.resource {
            Resource::Graph => resource == GRAPH_URL || resource == self.named,
            Resource::App(app) => contains(&app.identifier_uris, resource),
        }
    }

    /// Requested scopes, with `.default` replaced: a user who signs in at the page gives these to the client.
    pub(crate) fn asked_by(&self, client: &App) -> Vec<String> {
        match (self.default, self.resource) {
            (false, _) => self.scopes.clone(),
            (true, Resource::Graph) => client.granted_graph_scopes.clone(),
            (true, Resource::App(app)) => app.scopes.clone(),
        }
    }

    pub(crate) fn wants(&self, openid_scope: &str) -> bool {
        self.openid.iter().any(|scope| scope == openid_scope)
    }

    /// `aud` of a token in v1 format (v2 has the app's id instead).
    pub(crate) fn v1_audience(&self) -> String {
        match self.resource {
            Resource::Graph if self.named.is_empty() => GRAPH_APP_ID.to_owned(),
            Resource::Graph if self.named == GRAPH_APP_ID => GRAPH_APP_ID.to_owned(),
            Resource::Graph => GRAPH_URL.to_owned(),
            Resource::App(_) => self.named.clone(),
        }
    }

    /// Scopes of the resource, as in the request.
    pub(crate) fn named_scopes(&self, scopes: &[String]) -> Vec<String> {
        let named = |scope: &String| match self.named.as_str() {
            "" => scope.clone(),
            named => format!("{named}/{scope}"),
        };
        scopes.iter().map(named).collect()
    }

    /// `scope` of the answer, as in the request.
    pub(crate) fn granted_text(&self, scopes: &[String]) -> String {
        [self.named_scopes(scopes), self.openid.clone()].concat().join(" ")
    }
}

fn find<'t>(named: &str, tenant: &'t Tenant, graph: &str) -> Option<Resource<'t>> {
    if named.is_empty() || named == GRAPH_APP_ID || named == GRAPH_URL || named == graph {
        return Some(Resource::Graph);
    }
    let by_id = Uuid::parse_str(named).ok();
    tenant
        .apps
        .iter()
        .find(|app| app.identifier_uris.iter().any(|uri| uri == named) || Some(app.client_id) == by_id)
        .map(Resource::App)
}

/// Returns whether a scope is one of OpenID Connect.
pub(crate) fn is_openid(scope: &str) -> bool {
    OPENID_SCOPES.contains(&scope)
}

fn contains(list: &[String], item: &str) -> bool {
    list.iter().any(|known| known == item)
}
