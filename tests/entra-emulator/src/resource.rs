//! What a `scope` parameter asks for: one resource, scopes of it, and OpenID Connect's own scopes.

use uuid::Uuid;

use crate::{
    configuration::{App, Tenant},
    errors::Aadsts,
};

/// Microsoft Graph's application id.
pub(crate) const GRAPH_APP_ID: &str = "00000003-0000-0000-c000-000000000000";
/// Microsoft Graph's resource identifier in the public cloud.
pub(crate) const GRAPH_URL: &str = "https://graph.microsoft.com";

/// Delegated scopes of Graph that exist; those granted to some app exist too.
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

/// Whom an access token is for.
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

/// A `scope` parameter, understood.
pub(crate) struct Requested<'t> {
    pub(crate) resource: Resource<'t>,
    /// The resource in the words of the request: `https://graph.microsoft.com`, `api://…`; empty for bare scopes.
    pub(crate) named: String,
    /// Without the resource.
    pub(crate) scopes: Vec<String>,
    /// `.default`: whatever was consented to.
    pub(crate) default: bool,
    /// `openid`, `profile`, `email`, `offline_access`, as asked for.
    pub(crate) openid: Vec<String>,
}

impl<'t> Requested<'t> {
    /// Understands `scope` as a request by some client of `tenant`; `graph` is the emulated Graph's URL.
    pub(crate) fn parse(scope: &str, tenant: &'t Tenant, graph: &str) -> Result<Self, Aadsts> {
        let mut openid = Vec::new();
        let mut found: Option<(Resource<'t>, String)> = None;
        let mut scopes = Vec::new();
        for item in scope.split_ascii_whitespace() {
            if OPENID_SCOPES.contains(&item) {
                openid.push(item.to_owned());
                continue;
            }
            // Bare scopes are Graph's. Identifier URIs may end in a slash, hence the *last* one divides.
            let (named, name) = item.rsplit_once('/').unwrap_or(("", item));
            let resource = find(named, tenant, graph).ok_or_else(|| Aadsts::ResourceUnknown(named.to_owned()))?;
            match &found {
                Some((first, _)) if !first.is(&resource) => {
                    return Err(Aadsts::SeveralResources(scope.to_owned()));
                }
                Some(_) => {}
                None => found = Some((resource, named.to_owned())),
            }
            scopes.push(name.to_owned());
        }
        let (resource, named) = found.unwrap_or((Resource::Graph, String::new()));
        let default = scopes.iter().any(|name| name == ".default");
        if default && scopes.len() > 1 {
            return Err(Aadsts::ScopeInvalid("scope", scope.to_owned()));
        }
        scopes.retain(|name| name != ".default");
        let requested = Self { resource, named, scopes, default, openid };
        requested.check_that_scopes_exist(tenant)?;
        Ok(requested)
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

    /// RFC 8707: `resource`, if present, must be an identifier of the scope's resource, character for character.
    pub(crate) fn check_resource_parameter(&self, resource: Option<&str>) -> Result<(), Aadsts> {
        let Some(resource) = resource else { return Ok(()) };
        let fits = match self.resource {
            Resource::Graph => resource == GRAPH_URL || resource == self.named,
            Resource::App(app) => app.identifier_uris.iter().any(|uri| uri == resource),
        };
        if fits { Ok(()) } else { Err(Aadsts::ResourceMismatch { resource: resource.to_owned() }) }
    }

    /// The scopes asked for, `.default` spelled out: what a user who signs in at the page gives the client.
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

    /// The answer's `scope`: in the words of the request.
    pub(crate) fn granted_text(&self, scopes: &[String]) -> String {
        let named = |scope: &String| match self.named.as_str() {
            "" => scope.clone(),
            named => format!("{named}/{scope}"),
        };
        let scopes = scopes.iter().map(named);
        scopes.chain(self.openid.iter().cloned()).collect::<Vec<_>>().join(" ")
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

fn contains(list: &[String], item: &str) -> bool {
    list.iter().any(|known| known == item)
}
