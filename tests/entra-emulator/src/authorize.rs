//! Authorization endpoint: checks the request, shows pages for the user and for consent, and redirects with a code.
//!
//! Users have no password. The page for the user is skipped if the browser has a session. The page for consent is
//! skipped if the user has consented before, or if the sign-in implies consent.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use html_escape::encode_quoted_attribute as escape;
use url::Url;

use crate::{
    claims::{ClaimsRequest, Session},
    client::{Form, find_app},
    configuration::{App, Consent, User},
    consent::Consented,
    errors::{Aadsts, Trace},
    keys::random_token,
    log::Learnt,
    pages::{Decision, PageForm, USER_INPUT, alert, document, error_page, hidden, scope_list, with_error},
    resource::{Requested, Resource},
    session,
    state::{Challenge, Code, Shared, TenantState},
};

/// Lifetime of an unused code, in seconds.
const CODE_LIFETIME: i64 = 600;

/// The client's own id of its request, which the answer repeats.
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

/// `POST /{tenant}/oauth2/v2.0/authorize`: the same request as a form, and the form of the sign-in page.
pub(crate) async fn submit(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    answer(&shared, &tenant, &body, &headers)
}

/// A request with a valid client and redirect URI, so that the client can receive all other errors.
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
            asked.answer(headers, &trace).unwrap_or_else(|error| asked.refuse(error.error(), &error, &trace))
        }
    }
}

pub(crate) fn resolve(shared: &Shared, tenant: &str, form: &Form) -> Result<Arc<TenantState>, Aadsts> {
    let client_id = form.require("client_id")?;
    if matches!(tenant, "common" | "organizations") {
        return Err(Aadsts::NotMultiTenant(client_id.to_owned()));
    }
    shared.concrete_tenant(tenant)
}

/// The registered redirect URI of the request. It must match exactly, except the port of this machine (RFC 8252 §7.3).
pub(crate) fn redirect_uri(app: &App, form: &Form) -> Result<Url, Aadsts> {
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

/// A plain HTTP address on this machine, without its port.
fn loopback(url: &Url) -> Option<String> {
    let local = url.scheme() == "http" && matches!(url.host_str(), Some("localhost" | "127.0.0.1"));
    local.then(|| {
        let query = url.query().unwrap_or_default();
        format!("{} {}?{query}", url.host_str().unwrap_or_default(), url.path())
    })
}

/// User who signs in, and the request.
struct SignedIn<'a> {
    user: &'a User,
    /// True for a sign-in at the page just now, false for the browser's session.
    at_page: bool,
    asked: &'a [Requested<'a>],
    claims: Session,
    challenge: Option<Challenge>,
}

impl Asked<'_> {
    fn answer(&self, headers: &HeaderMap, trace: &Trace) -> Result<Response, Aadsts> {
        let response_type = self.form.require("response_type")?;
        if response_type != "code" {
            return Err(Aadsts::ResponseTypeUnsupported(response_type.to_owned()));
        }
        let asked = self.requested()?;
        let claims = ClaimsRequest::parse(self.form.get("claims")).ok_or(Aadsts::Malformed)?.session;
        let challenge = self.challenge()?;
        if let Some(name) = self.form.get(USER_INPUT) {
            return match self.tenant.directory.find_user(name) {
                Some(user) if user.account_enabled => {
                    self.signed_in(SignedIn { user, at_page: true, asked: &asked, claims, challenge }, trace)
                }
                Some(_) => Ok(self.sign_in_page(Some(&Aadsts::AccountDisabled), trace)),
                None => Ok(self.sign_in_page(Some(&Aadsts::UserUnknown(name.to_owned())), trace)),
            };
        }
        let session = session::find(self.shared, self.tenant, headers).filter(|(user, _)| self.may_be(user));
        match session {
            Some((user, met)) if met.meets(&claims) => {
                self.signed_in(SignedIn { user, at_page: false, asked: &asked, claims, challenge }, trace)
            }
            Some(_) if self.is_silent() => Err(Aadsts::StepUpRequired {
                resource: self.app.client_id.to_string(),
                claims: self.form.get("claims").unwrap_or_default().to_owned(),
                basic_action: false,
            }),
            None if self.is_silent() => Err(Aadsts::LoginRequired),
            _ => Ok(self.sign_in_page(None, trace)),
        }
    }

    fn requested(&self) -> Result<Vec<Requested<'_>>, Aadsts> {
        let asked = Requested::parse_all(self.form.require("scope")?, &self.tenant.directory, &self.shared.graph)?;
        if let Some(resource) = self.form.get("resource")
            && !asked.iter().any(|requested| requested.is_identified_by(resource))
        {
            return Err(Aadsts::ResourceMismatch { resource: resource.to_owned() });
        }
        for requested in &asked {
            requested.check_that_itself_is_a_guid(self.app)?;
        }
        Ok(asked)
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

    /// `prompt=none`: no page may be shown.
    fn is_silent(&self) -> bool {
        self.form.get("prompt") == Some("none")
    }

    /// Returns whether the request accepts this user of the browser's session without a page.
    fn may_be(&self, user: &User) -> bool {
        let hinted =
            self.form.get("login_hint").is_none_or(|hint| hint.eq_ignore_ascii_case(&user.user_principal_name));
        hinted && !matches!(self.form.get("prompt"), Some("login" | "select_account"))
    }

    /// The answer for a known user. A new session of the browser is included.
    fn signed_in(&self, signed_in: SignedIn<'_>, trace: &Trace) -> Result<Response, Aadsts> {
        let (user, at_page) = (signed_in.user, signed_in.at_page);
        let cookie = at_page.then(|| session::begin(self.shared, self.tenant, user, &signed_in.claims)).flatten();
        let mut response = match self.admit(&signed_in, trace) {
            Ok(Some(response)) => response,
            Ok(None) => self.code(signed_in),
            Err(error) => self.refuse(error.error(), &error, trace),
        };
        response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
        response.extensions_mut().insert(Learnt { user: Some(user.oid), federated: None });
        Ok(response)
    }

    /// Checks assignment and consent. `None` means that nothing is missing.
    fn admit(&self, signed_in: &SignedIn<'_>, trace: &Trace) -> Result<Option<Response>, Aadsts> {
        let SignedIn { user, asked, .. } = *signed_in;
        if let Err(error) = check_assignment(self.tenant, self.app, user, asked) {
            return Ok(Some(match Decision::of(self.form) {
                _ if self.is_silent() => self.refuse("interaction_required", &error, trace),
                Some(Decision::Cancel) => self.refuse("access_denied", &error, trace),
                _ => self.blocked_page("Sign-in failed", user, &error, trace),
            }));
        }
        let consented = Consented { shared: self.shared, tenant: self.tenant, client: self.app, user };
        let asks = match self.app.consent {
            Consent::OnSignIn => false,
            Consent::Ask | Consent::AdminOnly => self.form.get("prompt") == Some("consent") || consented.lacks(asked),
        };
        if !asks {
            return Ok(None);
        }
        if self.is_silent() {
            return Ok(Some(self.refuse("consent_required", &consented.required(), trace)));
        }
        let decision = Decision::of(self.form);
        if self.app.consent == Consent::AdminOnly && !user.administrator {
            let (tenant, name) = (self.tenant.directory.id, self.app.display_name.clone());
            let error = Aadsts::AdminConsentRequired { tenant, name };
            return Ok(Some(match decision {
                Some(Decision::Cancel) => self.refuse("access_denied", &error, trace),
                _ => self.blocked_page("Need admin approval", user, &error, trace),
            }));
        }
        match decision {
            Some(Decision::Accept) => {
                self.shared.lock().consents.grant(consented.party(), self.app, asked);
                Ok(None)
            }
            Some(Decision::Cancel) => Err(Aadsts::ConsentDeclined),
            None => Ok(Some(self.consent_page(user, asked))),
        }
    }

    fn code(&self, signed_in: SignedIn<'_>) -> Response {
        let code = random_token();
        let parameter = |name| self.form.get(name).map(ToOwned::to_owned);
        let entry = Code {
            tenant: self.tenant.directory.id,
            client: self.app.client_id,
            user: signed_in.user.oid,
            redirect_uri: self.form.get("redirect_uri").unwrap_or_default().to_owned(),
            scope: self.form.get("scope").unwrap_or_default().to_owned(),
            challenge: signed_in.challenge,
            nonce: parameter("nonce"),
            claims: parameter("claims"),
            issue: self.shared.next_issue(),
            expires: self.shared.now() + CODE_LIFETIME,
            redeemed: false,
        };
        self.shared.lock().codes.insert(code.clone(), entry);
        let session = uuid::Uuid::new_v4().to_string();
        self.back(&[("code", &code), ("session_state", &session)])
    }

    /// Returns the redirect with an error to the client; `error_subcode=cancel` if a user went back.
    fn refuse(&self, error: &str, cause: &Aadsts, trace: &Trace) -> Response {
        let description = cause.description(trace);
        let mut parameters = vec![("error", error), ("error_description", &description)];
        if error == "access_denied" {
            parameters.insert(1, ("error_subcode", "cancel"));
        }
        with_error(self.back(&parameters), cause)
    }

    /// Redirects to the client, in the response mode of its request.
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

    fn page_form(&self) -> PageForm<'_> {
        let (authority, tenant) = (&self.shared.authority, self.tenant.directory.id);
        PageForm { action: format!("{authority}/{tenant}/oauth2/v2.0/authorize"), request: self.form }
    }

    fn sign_in_page(&self, error: Option<&Aadsts>, trace: &Trace) -> Response {
        let response = document(
            StatusCode::OK,
            "Sign in",
            &format!(
                "{}<p>Choose who signs in to <strong>{}</strong>, which asks for <code>{}</code>.</p>{}",
                error.map_or_else(String::new, |error| alert(error, trace)),
                escape(&self.app.display_name),
                escape(self.form.get("scope").unwrap_or_default()),
                self.page_form().users(&self.tenant.directory.users),
            ),
        );
        match error {
            None => response,
            Some(error) => with_error(response, error),
        }
    }

    fn consent_page(&self, user: &User, asked: &[Requested<'_>]) -> Response {
        document(
            StatusCode::OK,
            "Permissions requested",
            &format!(
                "<p>{}, <strong>{}</strong> asks for these permissions.</p>{}{}",
                escape(&user.user_principal_name),
                escape(&self.app.display_name),
                scope_list(asked, self.app),
                self.page_form().decision(user),
            ),
        )
    }

    /// A page with only a link back. Here Entra itself does not redirect to a client.
    fn blocked_page(&self, title: &str, user: &User, error: &Aadsts, trace: &Trace) -> Response {
        let body = format!("{}{}", alert(error, trace), self.page_form().back(user));
        with_error(document(StatusCode::OK, title, &body), error)
    }
}

/// Refuses a user without access to the client, or to an app that it requests.
pub(crate) fn check_assignment(
    tenant: &TenantState,
    client: &App,
    user: &User,
    asked: &[Requested<'_>],
) -> Result<(), Aadsts> {
    let resources = asked.iter().filter_map(|requested| match requested.resource {
        Resource::App(app) => Some(app),
        Resource::Graph => None,
    });
    match std::iter::once(client).chain(resources).find(|app| !tenant.directory.admits(app, user)) {
        None => Ok(()),
        Some(app) => Err(Aadsts::NotAssigned {
            app: app.client_id,
            name: app.display_name.clone(),
            user: user.user_principal_name.clone(),
        }),
    }
}
