//! Client of a token request: the form's parameters, the app registration, and the proof of identity.

use std::collections::HashMap;

use axum::http::{HeaderMap, header};
use uuid::Uuid;

use crate::{
    configuration::{App, Tenant},
    errors::Aadsts,
    federation,
    keys::Unverified,
    log::Learnt,
    state::{Shared, TenantState},
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Parameters of a request, each at most once.
pub(crate) struct Form(HashMap<String, String>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`, as in a query or a body.
    pub(crate) fn parse(encoded: &[u8]) -> Result<Self, Aadsts> {
        let mut parameters = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(encoded) {
            if parameters.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(Aadsts::ParameterDuplicated(name.into_owned()));
            }
        }
        Ok(Self(parameters))
    }

    /// Value of a parameter. An empty one counts as absent (RFC 6749 §3.1).
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn require(&self, name: &'static str) -> Result<&str, Aadsts> {
        self.get(name).ok_or(Aadsts::ParameterMissing(name))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Client of a request.
pub(crate) struct Client<'t> {
    pub(crate) app: &'t App,
    /// Authenticated with an assertion. A public client is only named.
    pub(crate) authenticated: bool,
}

/// Returns whether the request has HTTP Basic credentials.
pub(crate) fn has_basic_credentials(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let scheme = value.and_then(|value| value.split(' ').next());
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))
}

/// The app registration that `client_id` names.
pub(crate) fn find_app<'t>(tenant: &'t Tenant, client_id: &str) -> Result<&'t App, Aadsts> {
    Uuid::parse_str(client_id)
        .ok()
        .and_then(|id| tenant.app(id))
        .ok_or_else(|| Aadsts::AppUnknown { client: client_id.to_owned(), tenant: tenant.id.to_string() })
}

/// Authenticates the client of a token request: public clients need nothing, all others a federated credential. A
/// secret is always refused, even beside a valid assertion.
pub(crate) async fn authenticate<'t>(
    shared: &Shared,
    tenant: &'t TenantState,
    headers: &HeaderMap,
    form: &Form,
    learnt: &mut Learnt,
) -> Result<Client<'t>, Aadsts> {
    if has_basic_credentials(headers) {
        return Err(Aadsts::ClientSecretInvalid(form.get("client_id").unwrap_or_default().to_owned()));
    }
    let app = find_app(&tenant.directory, form.require("client_id")?)?;
    let assertion = form.get("client_assertion");
    if app.public_client {
        return if assertion.is_some() || form.get("client_secret").is_some() {
            Err(Aadsts::PublicClientWithCredential)
        } else {
            Ok(Client { app, authenticated: false })
        };
    }
    if form.get("client_secret").is_some() {
        return Err(Aadsts::ClientSecretInvalid(app.client_id.to_string()));
    }
    let assertion = assertion.ok_or(Aadsts::CredentialMissing)?;
    if form.require("client_assertion_type")? != JWT_BEARER {
        return Err(Aadsts::Malformed);
    }
    let assertion =
        Unverified::parse(assertion).ok_or(Aadsts::MalformedToken("The client assertion is not a JSON Web Token."))?;
    let identity = federation::identity(&assertion)?;
    learnt.federated = Some(identity.clone());
    let credentials = tenant.credentials(app);
    if credentials.is_empty() {
        return Err(Aadsts::FederatedNone { client: app.client_id, name: app.display_name.clone() });
    }
    federation::check(credentials, &assertion, &identity, shared.now(), &shared.federation_client()).await?;
    Ok(Client { app, authenticated: true })
}
