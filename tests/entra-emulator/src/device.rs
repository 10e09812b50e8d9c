//! Device code flow (RFC 8628): a code for the device, a page to enter it at, and the result for the polling device.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use html_escape::encode_quoted_attribute as escape;
use rand::seq::IndexedRandom as _;
use serde_json::json;
use uuid::Uuid;

use crate::{
    authorize::client_request_id,
    client::{Form, find_app},
    errors::{Aadsts, Trace},
    keys::random_token,
    log::Learnt,
    pages::{USER_INPUT, document, error_page},
    resource::Requested,
    state::Shared,
};

/// Lifetime of a code without a user, in seconds.
const LIFETIME: i64 = 900;
/// Seconds between two polls. Entra uses 5.
const INTERVAL: u32 = 1;
/// Alphabet of user codes. It has no vowels, so that no words result, and no similar characters.
const ALPHABET: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ";
const USER_CODE_LENGTH: usize = 9;
const USER_CODE_INPUT: &str = "otc";
const DECLINE: &str = "decline";

/// Data of a device code.
#[derive(Clone)]
pub(crate) struct DeviceCode {
    pub(crate) tenant: Uuid,
    pub(crate) client: Uuid,
    pub(crate) user_code: String,
    pub(crate) scope: String,
    /// Seconds since 1970.
    pub(crate) expires: i64,
    pub(crate) outcome: Outcome,
}

/// State of a device code.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    Pending,
    Declined,
    SignedIn {
        user: Uuid,
        issue: u64,
    },
    /// The device has its tokens.
    Redeemed,
}

/// `POST /{tenant}/oauth2/v2.0/devicecode`
pub(crate) async fn code(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let trace = Trace::new(client_request_id(&headers), shared.now());
    match new_code(&shared, &tenant, &body) {
        Ok(answer) => (trace.headers(), answer).into_response(),
        Err(error) => error.into_response(&shared.authority, &trace),
    }
}

fn new_code(shared: &Shared, tenant: &str, body: &[u8]) -> Result<Json<serde_json::Value>, Aadsts> {
    let form = Form::parse(body)?;
    let client_id = form.require("client_id")?;
    if matches!(tenant, "common" | "organizations") {
        return Err(Aadsts::NotMultiTenant(client_id.to_owned()));
    }
    let tenant = shared.concrete_tenant(tenant)?;
    let app = find_app(&tenant.directory, client_id)?;
    let scope = form.require("scope")?;
    Requested::parse(scope, &tenant.directory, &shared.graph)?.check_resource_parameter(form.get("resource"))?;
    let device_code = random_token();
    let user_code: String = {
        let mut random = rand::rng();
        (0..USER_CODE_LENGTH).filter_map(|_| ALPHABET.choose(&mut random)).map(|letter| char::from(*letter)).collect()
    };
    let entry = DeviceCode {
        tenant: tenant.directory.id,
        client: app.client_id,
        user_code: user_code.clone(),
        scope: scope.to_owned(),
        expires: shared.now() + LIFETIME,
        outcome: Outcome::Pending,
    };
    shared.lock().device_codes.insert(device_code.clone(), entry);
    let uri = format!("{}/devicelogin", shared.authority);
    Ok(Json(json!({
        "user_code": user_code,
        "device_code": device_code,
        "verification_uri": uri,
        "expires_in": LIFETIME,
        "interval": INTERVAL,
        "message": format!(
            "To sign in, use a web browser to open the page {uri} and enter the code {user_code} to authenticate."
        ),
    })))
}

/// `GET /devicelogin`: page on which a user enters the code, selects the user, and signs in or declines.
pub(crate) async fn page(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    enter(&shared, query.unwrap_or_default().as_bytes(), &headers)
}

/// `POST /devicelogin`: receives the form of this page.
pub(crate) async fn submit(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    enter(&shared, &body, &headers)
}

fn enter(shared: &Shared, parameters: &[u8], headers: &HeaderMap) -> Response {
    let trace = Trace::new(client_request_id(headers), shared.now());
    let entered = Form::parse(parameters).and_then(|form| match (form.get(USER_CODE_INPUT), form.get(USER_INPUT)) {
        (Some(code), Some(user)) => decide(shared, code, user).map(Some),
        _ => Ok(None),
    });
    match entered {
        Ok(Some(user)) => {
            let text = "<p>You may close this window.</p>";
            let mut response = document(StatusCode::OK, "Done", text);
            response.extensions_mut().insert(Learnt { user, federated: None });
            response
        }
        Ok(None) => document(
            StatusCode::OK,
            "Enter code",
            &format!(
                "<form method=\"post\" action=\"{}/devicelogin\">\
                 <p><label>Code <input name=\"{USER_CODE_INPUT}\" required></label></p>\
                 <p><label>User principal name, or {DECLINE} <input name=\"{USER_INPUT}\" required></label></p>\
                 <button>Continue</button></form>",
                escape(&shared.authority),
            ),
        ),
        Err(error) => error_page(&error, &trace),
    }
}

/// User who signed in, if any.
fn decide(shared: &Shared, user_code: &str, name: &str) -> Result<Option<Uuid>, Aadsts> {
    let (now, issue) = (shared.now(), shared.next_issue());
    let waiting = |code: &DeviceCode| {
        code.user_code.eq_ignore_ascii_case(user_code) && matches!(code.outcome, Outcome::Pending) && code.expires > now
    };
    let tenant = shared.lock().device_codes.find_mut(waiting).map(|code| code.tenant);
    let tenant = tenant.and_then(|tenant| shared.tenant(tenant)).ok_or(Aadsts::DeviceCodeUnknown)?;
    let (outcome, user) = if name == DECLINE {
        (Outcome::Declined, None)
    } else {
        let user = tenant.directory.find_user(name).ok_or_else(|| Aadsts::UserUnknown(name.to_owned()))?;
        if !user.account_enabled {
            return Err(Aadsts::AccountDisabled);
        }
        (Outcome::SignedIn { user: user.oid, issue }, Some(user.oid))
    };
    let mut state = shared.lock();
    state.device_codes.find_mut(waiting).ok_or(Aadsts::DeviceCodeUnknown)?.outcome = outcome;
    Ok(user)
}

/// Returns the result for the device's code, once: the requested scope, the user, and the time of the sign-in.
pub(crate) fn redeem(
    shared: &Shared,
    tenant: Uuid,
    client: Uuid,
    presented: &str,
) -> Result<(String, Uuid, u64), Aadsts> {
    let now = shared.now();
    let mut state = shared.lock();
    let code = state.device_codes.get_mut(presented).filter(|code| code.tenant == tenant && code.client == client);
    let code = code.ok_or(Aadsts::DeviceCodeUnknown)?;
    match code.outcome {
        Outcome::SignedIn { user, issue } => {
            code.outcome = Outcome::Redeemed;
            Ok((code.scope.clone(), user, issue))
        }
        Outcome::Declined => Err(Aadsts::DeviceDeclined),
        Outcome::Redeemed => Err(Aadsts::CodeRedeemed),
        Outcome::Pending if code.expires <= now => Err(Aadsts::DeviceCodeExpired),
        Outcome::Pending => Err(Aadsts::DevicePending),
    }
}
