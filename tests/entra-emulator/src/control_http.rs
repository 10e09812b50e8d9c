//! The control operations over HTTP, under `/_control` of the authority's host, for those who run the program.
//!
//! | Request | Does |
//! |---|---|
//! | `POST /_control/tenants` | adds a tenant |
//! | `POST /_control/trusted-ca` | trusts the PEM bundle in the body |
//! | `POST /_control/tenants/{tenant}/apps/{client}/federated-credentials` | adds a federated credential |
//! | `DELETE /_control/tenants/{tenant}/apps/{client}/federated-credentials/{name}` | removes it |
//! | `POST /_control/tenants/{tenant}/apps/{client}/role-assignments` | assigns a principal, with a role or just so |
//! | `DELETE /_control/tenants/{tenant}/apps/{client}/role-assignments/{principal}` | removes the principal's assignments |
//! | `POST /_control/tenants/{tenant}/apps/{client}/consents` | `{user, scope}`: consents; without `user` for all users |
//! | `DELETE /_control/tenants/{tenant}/apps/{client}/consents` | withdraws the consents given for all users |
//! | `DELETE /_control/tenants/{tenant}/apps/{client}/consents/{user}` | withdraws a user's consents |
//! | `POST /_control/tenants/{tenant}/users/{user}/revoke` | voids a user's tokens and browser sessions |
//! | `POST /_control/tenants/{tenant}/users/{user}/disable` | disables the account |
//! | `POST /_control/tenants/{tenant}/users/{user}/enable` | enables it again |
//! | `POST /_control/tenants/{tenant}/roll-signing-key` | signs with a new key from now on |
//! | `POST /_control/tenants/{tenant}/withdraw-old-signing-keys` | publishes the key that signs now alone |
//! | `POST /_control/tenants/{tenant}/sign` | `{header, claims}` → `{token}` |
//! | `POST /_control/tenants/{tenant}/user-claims` | `{client, user, scope}` → claims |
//! | `POST /_control/tenants/{tenant}/mint` | `{client, user, scope}` → `{token}` |
//! | `GET /_control/requests` | the request log |
//! | `POST /_control/faults`, `DELETE /_control/faults` | injects a fault; forgets all |
//! | `POST /_control/clock` | `{advanceSeconds}` |
//!
//! Errors are answered with 400 and `{error}`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRef, Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Control, FederatedCredential, RoleAssignment, Tenant, log::Fault, state::Shared};

impl FromRef<Arc<Shared>> for Control {
    fn from_ref(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }
}

/// Routes of the control operations. They are neither logged nor subject to faults.
pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/_control/tenants", post(add_tenant))
        .route("/_control/trusted-ca", post(trust))
        .route("/_control/tenants/{tenant}/apps/{client}/federated-credentials", post(add_credential))
        .route("/_control/tenants/{tenant}/apps/{client}/federated-credentials/{name}", delete(remove_credential))
        .route("/_control/tenants/{tenant}/apps/{client}/role-assignments", post(assign))
        .route("/_control/tenants/{tenant}/apps/{client}/role-assignments/{principal}", delete(unassign))
        .route("/_control/tenants/{tenant}/apps/{client}/consents", post(consent).delete(withdraw_for_all))
        .route("/_control/tenants/{tenant}/apps/{client}/consents/{user}", delete(withdraw))
        .route("/_control/tenants/{tenant}/users/{user}/revoke", post(revoke))
        .route("/_control/tenants/{tenant}/users/{user}/disable", post(disable))
        .route("/_control/tenants/{tenant}/users/{user}/enable", post(enable))
        .route("/_control/tenants/{tenant}/roll-signing-key", post(roll_signing_key))
        .route("/_control/tenants/{tenant}/withdraw-old-signing-keys", post(withdraw_old_signing_keys))
        .route("/_control/tenants/{tenant}/sign", post(sign))
        .route("/_control/tenants/{tenant}/user-claims", post(user_claims))
        .route("/_control/tenants/{tenant}/mint", post(mint))
        .route("/_control/requests", get(requests))
        .route("/_control/faults", post(inject).delete(clear_faults))
        .route("/_control/clock", post(clock))
}

/// A control operation that failed.
struct Refused(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(json!({"error": format!("{:#}", self.0)}))).into_response()
    }
}

const DONE: StatusCode = StatusCode::NO_CONTENT;

async fn add_tenant(State(control): State<Control>, Json(tenant): Json<Tenant>) -> Result<StatusCode, Refused> {
    control.add_tenant(tenant)?;
    Ok(DONE)
}

async fn trust(State(control): State<Control>, pem: String) -> Result<StatusCode, Refused> {
    control.trust_ca_pem(&pem)?;
    Ok(DONE)
}

async fn add_credential(
    State(control): State<Control>,
    Path((tenant, client)): Path<(Uuid, Uuid)>,
    Json(credential): Json<FederatedCredential>,
) -> Result<StatusCode, Refused> {
    control.add_federated_credential(tenant, client, credential)?;
    Ok(DONE)
}

async fn remove_credential(
    State(control): State<Control>,
    Path((tenant, client, name)): Path<(Uuid, Uuid, String)>,
) -> Result<StatusCode, Refused> {
    control.remove_federated_credential(tenant, client, &name)?;
    Ok(DONE)
}

async fn assign(
    State(control): State<Control>,
    Path((tenant, client)): Path<(Uuid, Uuid)>,
    Json(assignment): Json<RoleAssignment>,
) -> Result<StatusCode, Refused> {
    control.assign(tenant, client, assignment)?;
    Ok(DONE)
}

async fn unassign(
    State(control): State<Control>,
    Path((tenant, client, principal)): Path<(Uuid, Uuid, Uuid)>,
) -> Result<StatusCode, Refused> {
    control.unassign(tenant, client, principal)?;
    Ok(DONE)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Consent {
    user: Option<Uuid>,
    scope: String,
}

async fn consent(
    State(control): State<Control>,
    Path((tenant, client)): Path<(Uuid, Uuid)>,
    Json(consent): Json<Consent>,
) -> Result<StatusCode, Refused> {
    control.grant_consent(tenant, client, consent.user, &consent.scope)?;
    Ok(DONE)
}

async fn withdraw_for_all(
    State(control): State<Control>,
    Path((tenant, client)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode, Refused> {
    control.withdraw_consent(tenant, client, None)?;
    Ok(DONE)
}

async fn withdraw(
    State(control): State<Control>,
    Path((tenant, client, user)): Path<(Uuid, Uuid, Uuid)>,
) -> Result<StatusCode, Refused> {
    control.withdraw_consent(tenant, client, Some(user))?;
    Ok(DONE)
}

async fn disable(
    State(control): State<Control>,
    Path((tenant, user)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode, Refused> {
    control.set_account_enabled(tenant, user, false)?;
    Ok(DONE)
}

async fn enable(
    State(control): State<Control>,
    Path((tenant, user)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode, Refused> {
    control.set_account_enabled(tenant, user, true)?;
    Ok(DONE)
}

async fn revoke(
    State(control): State<Control>,
    Path((tenant, user)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode, Refused> {
    control.revoke(tenant, user)?;
    Ok(DONE)
}

async fn roll_signing_key(State(control): State<Control>, Path(tenant): Path<Uuid>) -> Result<StatusCode, Refused> {
    control.roll_signing_key(tenant)?;
    Ok(DONE)
}

async fn withdraw_old_signing_keys(
    State(control): State<Control>,
    Path(tenant): Path<Uuid>,
) -> Result<StatusCode, Refused> {
    control.withdraw_old_signing_keys(tenant)?;
    Ok(DONE)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sign {
    #[serde(default)]
    header: Value,
    claims: Value,
}

async fn sign(
    State(control): State<Control>,
    Path(tenant): Path<Uuid>,
    Json(sign): Json<Sign>,
) -> Result<Json<Value>, Refused> {
    let token = control.sign(tenant, &sign.header, &sign.claims)?;
    Ok(Json(json!({"token": token})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForUser {
    client: Uuid,
    user: String,
    scope: String,
}

async fn user_claims(
    State(control): State<Control>,
    Path(tenant): Path<Uuid>,
    Json(asked): Json<ForUser>,
) -> Result<Json<Value>, Refused> {
    let claims = control.user_claims(tenant, asked.client, &asked.user, &asked.scope)?;
    Ok(Json(Value::Object(claims)))
}

async fn mint(
    State(control): State<Control>,
    Path(tenant): Path<Uuid>,
    Json(asked): Json<ForUser>,
) -> Result<Json<Value>, Refused> {
    let token = control.mint_user_access_token(tenant, asked.client, &asked.user, &asked.scope)?;
    Ok(Json(json!({"token": token})))
}

async fn requests(State(control): State<Control>) -> Response {
    Json(control.requests()).into_response()
}

async fn inject(State(control): State<Control>, Json(fault): Json<Fault>) -> Result<StatusCode, Refused> {
    control.inject(fault)?;
    Ok(DONE)
}

async fn clear_faults(State(control): State<Control>) -> StatusCode {
    control.clear_faults();
    DONE
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Clock {
    advance_seconds: i64,
}

async fn clock(State(control): State<Control>, Json(clock): Json<Clock>) -> StatusCode {
    control.advance_clock(clock.advance_seconds);
    DONE
}
