//! The authorization endpoint: the request checked, a page to choose who signs in, and the way back with a code.
//!
//! Nobody has a password here, no session outlives a sign-in, and signing in is consenting to what the client asks for.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse as _, Response},
};
use html_escape::encode_quoted_attribute as escape;
use url::Url;

use crate::{
    claims::ClaimsRequest,
    client::{Form, find_app},
    configuration::{App, User},
    errors::{Aadsts, Failed, Trace},
    keys::random_token,
    log::Learnt,
    resource::Requested,
    state::{Challenge, Code, Shared, TenantState},
};

/// How long a code waits to be redeemed, in seconds.
const CODE_LIFETIME: i64 = 600;
/// The one input of the page that is not a parameter of the authorization request.
pub(crate) const USER_INPUT: &str = "emulator_user";

/// The caller's own id for its request, to be repeated in the answer.
pub(crate) fn client_request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("client-request-id").and_then(|value| value.to_str().ok())
}

/// `GET /{tenant}/oauth2/v2.0/authorize`: the sign-in page.
pub(crate) async fn page(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    answer(&shared, &tenant, query.unwrap_or_default().as_bytes(), &headers)
}

/// `POST /{tenant}/oauth2/v2.0/authorize`: the same with a form, and where the page sends who was chosen.
pub(crate) async fn submit(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    answer(&shared, &tenant, &body, &headers)
}

/// A request whose client and redirect URI are right, so that the client can be told about anything else.
struct Asked<'a> {
    shared: &'a Shared,
    tenant: &'a TenantState,
    app: &'a App,
    redirect_uri: Url,
    form: &'a Form,
}

fn answer(shared: &Shared, tenant: &str, parameters: &[u8], headers: &HeaderMap) -> Response {
    let trace = Trace::new(client_request_id(headers), shared.now());
    let form = match Form::parse(parameters) {
        Ok(form) => form,
        Err(error) => return error_page(&error, &trace),
    };
    let known = match resolve(shared, tenant, &form) {
        Ok(known) => known,
        Err(error) => return error_page(&error, &trace),
    };
    let directory = &known.directory;
    let asked = find_app(directory, form.get("client_id").unwrap_or_default())
        .and_then(|app| Ok((app, redirect_uri(app, &form)?)));
    match asked {
        // Never to an address that the client did not register (RFC 9700 §4.1).
        Err(error) => error_page(&error, &trace),
        Ok((app, redirect_uri)) => {
            let asked = Asked { shared, tenant: &known, app, redirect_uri, form: &form };
            asked.answer(&trace).unwrap_or_else(|error| {
                let mut response =
                    asked.back(&[("error", error.error()), ("error_description", &error.description(&trace))]);
                response.extensions_mut().insert(Failed { code: error.code() });
                response
            })
        }
    }
}

fn resolve(shared: &Shared, tenant: &str, form: &Form) -> Result<Arc<TenantState>, Aadsts> {
    let client_id = form.require("client_id")?;
    if matches!(tenant, "common" | "organizations") {
        return Err(Aadsts::NotMultiTenant(client_id.to_owned()));
    }
    shared.concrete_tenant(tenant)
}

/// The registered redirect URI that is asked for: exactly, but for the port of this machine (RFC 8252 §7.3).
fn redirect_uri(app: &App, form: &Form) -> Result<Url, Aadsts> {
    let asked = form.require("redirect_uri")?;
    let unknown = || Aadsts::RedirectUriUnknown(asked.to_owned(), app.client_id);
    let url = Url::parse(asked).map_err(|_| unknown())?;
    let local = loopback(&url);
    let fits = |registered: &String| registered == asked || (local.is_some() && local == without_port(registered));
    if app.redirect_uris.iter().any(fits) { Ok(url) } else { Err(unknown()) }
}

fn without_port(registered: &str) -> Option<String> {
    Url::parse(registered).ok().as_ref().and_then(loopback)
}

/// A plain HTTP address on this machine, its port left out.
fn loopback(url: &Url) -> Option<String> {
    let local = url.scheme() == "http" && matches!(url.host_str(), Some("localhost" | "127.0.0.1"));
    local.then(|| {
        let query = url.query().unwrap_or_default();
        format!("{} {}?{query}", url.host_str().unwrap_or_default(), url.path())
    })
}

impl Asked<'_> {
    fn answer(&self, trace: &Trace) -> Result<Response, Aadsts> {
        let response_type = self.form.require("response_type")?;
        if response_type != "code" {
            return Err(Aadsts::ResponseTypeUnsupported(response_type.to_owned()));
        }
        let scope = self.form.require("scope")?;
        let requested = Requested::parse(scope, &self.tenant.directory, &self.shared.graph)?;
        requested.check_resource_parameter(self.form.get("resource"))?;
        ClaimsRequest::parse(self.form.get("claims")).ok_or(Aadsts::Malformed)?;
        let challenge = self.challenge()?;
        if self.form.get("prompt") == Some("none") {
            return Err(Aadsts::LoginRequired);
        }
        let Some(name) = self.form.get(USER_INPUT) else {
            return Ok(self.sign_in_page(None, trace));
        };
        match self.tenant.directory.find_user(name) {
            Some(user) if user.account_enabled => Ok(self.signed_in(user, scope, challenge)),
            Some(_) => Ok(self.sign_in_page(Some(&Aadsts::AccountDisabled), trace)),
            None => Ok(self.sign_in_page(Some(&Aadsts::UserUnknown(name.to_owned())), trace)),
        }
    }

    fn challenge(&self) -> Result<Option<Challenge>, Aadsts> {
        let Some(challenge) = self.form.get("code_challenge") else {
            return Ok(None);
        };
        match self.form.get("code_challenge_method") {
            Some("S256") => Ok(Some(Challenge::Sha256(challenge.to_owned()))),
            None | Some("plain") => Ok(Some(Challenge::Plain(challenge.to_owned()))),
            Some(_) => Err(Aadsts::Malformed),
        }
    }

    fn signed_in(&self, user: &User, scope: &str, challenge: Option<Challenge>) -> Response {
        let code = random_token();
        let parameter = |name| self.form.get(name).map(ToOwned::to_owned);
        let entry = Code {
            tenant: self.tenant.directory.id,
            client: self.app.client_id,
            user: user.oid,
            redirect_uri: self.form.get("redirect_uri").unwrap_or_default().to_owned(),
            scope: scope.to_owned(),
            challenge,
            nonce: parameter("nonce"),
            claims: parameter("claims"),
            issue: self.shared.next_issue(),
            expires: self.shared.now() + CODE_LIFETIME,
            redeemed: false,
        };
        self.shared.lock().codes.insert(code.clone(), entry);
        let session = uuid::Uuid::new_v4().to_string();
        let mut response = self.back(&[("code", &code), ("session_state", &session)]);
        response.extensions_mut().insert(Learnt { user: Some(user.oid), federated: None });
        response
    }

    /// To the client, in the response mode that it asked for.
    fn back(&self, parameters: &[(&str, &str)]) -> Response {
        let state = self.form.get("state").map(|state| ("state", state));
        let parameters = parameters.iter().copied().chain(state);
        let mut target = self.redirect_uri.clone();
        match self.form.get("response_mode") {
            Some("form_post") => {
                let inputs: String = parameters.map(|(name, value)| hidden(name, value)).collect();
                let action = escape(self.redirect_uri.as_str());
                return document(
                    StatusCode::OK,
                    "Signing in",
                    &format!(
                        "<form method=\"post\" action=\"{action}\">{inputs}<button>Continue</button></form>\
                         <script>document.forms[0].submit()</script>"
                    ),
                );
            }
            Some("fragment") => {
                let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
                target.set_fragment(Some(&encoded));
            }
            _ => {
                target.query_pairs_mut().extend_pairs(parameters);
            }
        }
        (
            StatusCode::FOUND,
            [(header::LOCATION, target.to_string()), (header::CACHE_CONTROL, "no-store, no-cache".to_owned())],
        )
            .into_response()
    }

    fn sign_in_page(&self, error: Option<&Aadsts>, trace: &Trace) -> Response {
        // The whole request travels in the form, so that the page needs no session.
        let inputs: String =
            self.form.iter().filter(|(name, _)| *name != USER_INPUT).map(|(name, value)| hidden(name, value)).collect();
        let hint = self.form.get("login_hint").unwrap_or_default();
        let users: String = self.tenant.directory.users.iter().map(|user| user_button(user, hint)).collect();
        let alert = error
            .map_or_else(String::new, |error| format!("<p role=\"alert\">{}</p>", escape(&error.description(trace))));
        let mut response = document(
            StatusCode::OK,
            "Sign in",
            &format!(
                "{alert}<p>Choose who signs in to <strong>{}</strong>, which asks for <code>{}</code>.</p>\
                 <form method=\"post\" action=\"{}/{}/oauth2/v2.0/authorize\">{inputs}<ul>{users}</ul></form>",
                escape(&self.app.display_name),
                escape(self.form.get("scope").unwrap_or_default()),
                self.shared.authority,
                self.tenant.directory.id,
            ),
        );
        if let Some(error) = error {
            response.extensions_mut().insert(Failed { code: error.code() });
        }
        response
    }
}

fn user_button(user: &User, hint: &str) -> String {
    let name = &user.user_principal_name;
    let focus = if name.eq_ignore_ascii_case(hint) { " autofocus" } else { "" };
    format!(
        "<li><button name=\"{USER_INPUT}\" value=\"{}\"{focus}>{} ({})</button></li>",
        escape(name),
        escape(&user.display_name),
        escape(name)
    )
}

fn hidden(name: &str, value: &str) -> String {
    format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escape(name), escape(value))
}

pub(crate) fn error_page(error: &Aadsts, trace: &Trace) -> Response {
    let text = format!("<p role=\"alert\">{}</p>", escape(&error.description(trace)));
    let mut response = document(StatusCode::BAD_REQUEST, "Sign-in failed", &text);
    response.extensions_mut().insert(Failed { code: error.code() });
    response
}

pub(crate) fn document(status: StatusCode, title: &str, body: &str) -> Response {
    let page = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} – entra-emulator</title>\
         <style>body{{font:1rem/1.5 sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}}\
         ul{{list-style:none;padding:0}}button{{font:inherit;padding:.5rem 1rem;margin:.25rem 0}}</style>\
         </head><body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    (status, [(header::CACHE_CONTROL, "no-store, no-cache")], Html(page)).into_response()
}
