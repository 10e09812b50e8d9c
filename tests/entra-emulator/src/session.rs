//! Session of a browser with the authority (single sign-on): a cookie from a sign-in, and the log-out endpoint.

use std::sync::Arc;

use axum::{
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use url::Url;
use uuid::Uuid;

use crate::{
    claims::Session,
    client::Form,
    configuration::User,
    keys::random_token,
    pages::document,
    state::{Shared, TenantState},
};

/// The cookie's name, as at Entra.
const COOKIE: &str = "ESTSAUTH";
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=None";

/// One browser's session: the last user who signed in.
#[derive(Clone)]
pub(crate) struct BrowserSession {
    tenant: Uuid,
    user: Uuid,
    /// Requirements that the sign-in met.
    met: Session,
    issue: u64,
}

/// Begins a session of the user who just signed in, and returns the cookie.
pub(crate) fn begin(shared: &Shared, tenant: &TenantState, user: &User, met: &Session) -> Option<HeaderValue> {
    let value = random_token();
    let session =
        BrowserSession { tenant: tenant.directory.id, user: user.oid, met: met.clone(), issue: shared.next_issue() };
    shared.lock().sessions.insert(value.clone(), session);
    HeaderValue::try_from(format!("{COOKIE}={value}; {ATTRIBUTES}")).ok()
}

/// Returns the user of the browser's session and the requirements that the sign-in met. Returns `None` for another
/// tenant, a disabled user, or a revoked session.
pub(crate) fn find<'t>(shared: &Shared, tenant: &'t TenantState, headers: &HeaderMap) -> Option<(&'t User, Session)> {
    let session = shared.lock().sessions.get(&cookie(headers)?).cloned()?;
    let user = tenant.directory.user(session.user).filter(|user| user.account_enabled)?;
    let valid = session.tenant == tenant.directory.id && tenant.revoked_at(user.oid, session.issue).is_none();
    valid.then_some((user, session.met))
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
}

/// `GET /{tenant}/oauth2/v2.0/logout`: ends the browser's session. It redirects to a registered address if the request
/// names one.
pub(crate) async fn log_out(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Some(session) = cookie(&headers) {
        shared.lock().sessions.remove(&session);
    }
    let form = Form::parse(query.unwrap_or_default().as_bytes()).ok();
    let target = form.as_ref().and_then(|form| after_log_out(&shared, &tenant, form));
    let mut response = match target {
        Some(target) => Redirect::to(target.as_str()).into_response(),
        None => document(StatusCode::OK, "Signed out", "<p>You signed out of your account.</p>"),
    };
    let ended = format!("{COOKIE}=; Max-Age=0; {ATTRIBUTES}");
    response.headers_mut().extend(HeaderValue::try_from(ended).ok().map(|value| (header::SET_COOKIE, value)));
    response
}

fn after_log_out(shared: &Shared, tenant: &str, form: &Form) -> Option<Url> {
    let asked = form.get("post_logout_redirect_uri")?;
    let tenant = shared.find_tenant(tenant)?;
    let registered = |app: &crate::App| app.redirect_uris.iter().any(|known| known == asked);
    if !tenant.directory.apps.iter().any(registered) {
        return None;
    }
    let mut target = Url::parse(asked).ok()?;
    if let Some(state) = form.get("state") {
        target.query_pairs_mut().append_pair("state", state);
    }
    Some(target)
}
