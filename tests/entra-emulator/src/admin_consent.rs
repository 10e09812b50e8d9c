//! The admin consent endpoint: an administrator consents to an application for all users of the tenant.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Redirect, Response},
};
use html_escape::encode_quoted_attribute as escape;
use url::Url;

use crate::{
    authorize::{client_request_id, redirect_uri, resolve},
    client::{Form, find_app},
    configuration::App,
    consent::Party,
    errors::{Aadsts, Trace},
    pages::{Decision, PageForm, USER_INPUT, alert, document, error_page, scope_list, with_error},
    resource::Requested,
    session,
    state::{Shared, TenantState},
};

/// `GET /{tenant}/v2.0/adminconsent`: the page to select a user, or to consent.
pub(crate) async fn page(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    answer(&shared, &tenant, query.unwrap_or_default().as_bytes(), &headers)
}

/// `POST /{tenant}/v2.0/adminconsent`: receives the forms of these pages.
pub(crate) async fn submit(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    answer(&shared, &tenant, &body, &headers)
}

fn answer(shared: &Shared, tenant: &str, parameters: &[u8], headers: &HeaderMap) -> Response {
    let trace = Trace::new(client_request_id(headers), shared.now());
    let answer = || {
        let form = Form::parse(parameters)?;
        let tenant = resolve(shared, tenant, &form)?;
        let app = find_app(&tenant.directory, form.require("client_id")?)?;
        let redirect_uri = registered(app, &form)?;
        let asked = Requested::parse_all(form.require("scope")?, &tenant.directory, &shared.graph)?;
        let request = Request { shared, tenant: &tenant, app, asked, redirect_uri, form: &form };
        Ok(request.answer(headers, &trace))
    };
    answer().unwrap_or_else(|error: Aadsts| error_page(&error, &trace))
}

fn registered(app: &App, form: &Form) -> Result<Url, Aadsts> {
    match (app.redirect_uris.first(), form.get("redirect_uri")) {
        (None, _) => Err(Aadsts::NoRedirectUri),
        (Some(_), Some(_)) => redirect_uri(app, form),
        (Some(first), None) => Url::parse(first).map_err(|_| Aadsts::NoRedirectUri),
    }
}

struct Request<'a> {
    shared: &'a Shared,
    tenant: &'a TenantState,
    app: &'a App,
    asked: Vec<Requested<'a>>,
    redirect_uri: Url,
    form: &'a Form,
}

impl Request<'_> {
    fn answer(&self, headers: &HeaderMap, trace: &Trace) -> Response {
        let directory = &self.tenant.directory;
        let user = match self.form.get(USER_INPUT) {
            Some(name) => directory.find_user(name).filter(|user| user.account_enabled),
            None => session::find(self.shared, self.tenant, headers).map(|(user, _)| user),
        };
        let (authority, tenant) = (&self.shared.authority, directory.id);
        let page = PageForm { action: format!("{authority}/{tenant}/v2.0/adminconsent"), request: self.form };
        let name = escape(&self.app.display_name);
        let Some(user) = user else {
            let body =
                format!("<p>Choose who consents to <strong>{name}</strong>.</p>{}", page.users(&directory.users));
            return document(StatusCode::OK, "Sign in", &body);
        };
        if !user.administrator {
            let error = Aadsts::AdminConsentRequired { tenant, name: self.app.display_name.clone() };
            let body = format!("{}{}", alert(&error, trace), page.users(&directory.users));
            return with_error(document(StatusCode::OK, "Need admin approval", &body), &error);
        }
        match Decision::of(self.form) {
            None => {
                let scopes = scope_list(&self.asked, self.app);
                let body = format!(
                    "<p><strong>{name}</strong> asks for these permissions for all users of the tenant.</p>{scopes}{}",
                    page.decision(user)
                );
                document(StatusCode::OK, "Permissions requested", &body)
            }
            Some(Decision::Accept) => {
                let party = Party { tenant, client: self.app.client_id, user: None };
                self.shared.lock().consents.grant(party, self.app, &self.asked);
                self.back(&[("scope", self.form.get("scope").unwrap_or_default())])
            }
            Some(Decision::Cancel) => {
                let error = Aadsts::ConsentDeclined;
                let description = error.description(trace);
                with_error(self.back(&[("error", error.error()), ("error_description", &description)]), &error)
            }
        }
    }

    fn back(&self, parameters: &[(&str, &str)]) -> Response {
        let mut target = self.redirect_uri.clone();
        let tenant = self.tenant.directory.id.to_string();
        target
            .query_pairs_mut()
            .extend_pairs([("admin_consent", "True"), ("tenant", &tenant)])
            .extend_pairs(self.form.get("state").map(|state| ("state", state)))
            .extend_pairs(parameters);
        Redirect::to(target.as_str()).into_response()
    }
}
