//! Microsoft Graph v1.0: profiles and memberships. The caller's token is checked here, and for no one else to read.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    authorize::client_request_id,
    claims::{issue_of, issued_after},
    configuration::{Group, User},
    keys::Unverified,
    mail,
    observe::{bearer, roles, words},
    resource::{GRAPH_APP_ID, GRAPH_URL},
    state::{Shared, TenantState},
};

const READ_ME: &[&str] = &["User.Read", "User.ReadWrite", "User.Read.All", "Directory.Read.All"];
const READ_USERS: &[&str] = &["User.ReadBasic.All", "User.Read.All", "Directory.Read.All"];
const READ_MEMBER_OF: &[&str] = &["User.Read.All", "GroupMember.Read.All", "Group.Read.All", "Directory.Read.All"];
const READ_MEMBERSHIPS: &[&str] = &["GroupMember.Read.All", "Group.Read.All", "Directory.Read.All"];

/// The routes of Graph's host.
pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1.0/me", get(me))
        .route("/v1.0/me/messages", get(mail::messages))
        .route("/v1.0/me/memberOf", get(my_groups))
        .route("/v1.0/me/transitiveMemberOf", get(my_transitive_groups))
        .route("/v1.0/me/checkMemberGroups", post(check_my_groups))
        .route("/v1.0/me/getMemberGroups", post(list_my_groups))
        .route("/v1.0/me/getMemberObjects", post(list_my_groups))
        .route("/v1.0/users/{user}", get(user))
        .route("/v1.0/users/{user}/memberOf", get(groups))
        .route("/v1.0/users/{user}/transitiveMemberOf", get(transitive_groups))
        .route("/v1.0/users/{user}/checkMemberGroups", post(check_groups))
        .route("/v1.0/users/{user}/getMemberGroups", post(list_groups))
        .route("/v1.0/users/{user}/getMemberObjects", post(list_groups))
        .fallback(async || {
            GraphError::new(400, "BadRequest", "Resource not found for the segment: the emulator does not have it.")
        })
        .layer(from_fn(identify))
}

/// Gives every answer the ids that Graph's answers have, in the headers and in an error's body.
async fn identify(request: Request, next: Next) -> Response {
    let request_id = Uuid::new_v4().to_string();
    let client_id = client_request_id(request.headers()).unwrap_or(&request_id).to_owned();
    let mut response = next.run(request).await;
    if response.status().is_client_error() && response.extensions().get::<GraphError>().is_none() {
        // The framework's own refusal of a body, a query or a method.
        let message = "Unable to read the request: its method, query or JSON body is not what the segment takes.";
        response = GraphError::new(400, "BadRequest", message).into_response();
    }
    if let Some(error) = response.extensions_mut().remove::<GraphError>() {
        let body = json!({"error": {
            "code": error.code,
            "message": error.message,
            "innerError": {
                "date": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S").to_string(),
                "request-id": request_id,
                "client-request-id": client_id,
            },
        }});
        let headers = std::mem::take(response.headers_mut());
        response = (response.status(), Json(body)).into_response();
        response.headers_mut().extend(headers);
    }
    for (name, id) in [("request-id", request_id), ("client-request-id", client_id)] {
        if let Ok(value) = HeaderValue::try_from(id) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// An error in Graph's shape; `identify` writes its body.
#[derive(Clone)]
pub(crate) struct GraphError {
    status: u16,
    code: &'static str,
    message: String,
    challenge: Option<String>,
}

impl GraphError {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), challenge: None }
    }

    fn denied() -> Self {
        Self::new(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
    }
}

impl IntoResponse for GraphError {
    fn into_response(self) -> Response {
        let mut response =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        if let Some(value) = self.challenge.as_ref().and_then(|text| HeaderValue::try_from(text).ok()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Who calls Graph: the outcome of checking the token.
pub(crate) struct Caller {
    tenant: Arc<TenantState>,
    subject: Subject,
}

enum Subject {
    User { oid: Uuid, scopes: Vec<String> },
    Application { roles: Vec<String> },
}

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = GraphError;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, GraphError> {
        authenticate(shared, &parts.headers)
    }
}

fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<Caller, GraphError> {
    let refuse = |message: &str| GraphError {
        challenge: Some(challenge(shared, "")),
        ..GraphError::new(401, "InvalidAuthenticationToken", message)
    };
    let token = bearer(headers).ok_or_else(|| refuse("Access token is empty."))?;
    let token =
        Unverified::parse(token).ok_or_else(|| refuse("IDX14100: JWT is not well formed, there are no dots (.)."))?;
    let audience = token.claim("aud").unwrap_or_default();
    if audience != GRAPH_URL && audience != GRAPH_APP_ID {
        return Err(refuse("Access token validation failure. Invalid audience."));
    }
    let invalid = || refuse("Invalid Authentication token.");
    let id = |name| token.claim(name).and_then(|id| Uuid::parse_str(id).ok());
    let tenant = id("tid").and_then(|tid| shared.tenant(tid)).ok_or_else(invalid)?;
    let key = token.kid().and_then(|kid| tenant.key(kid)).ok_or_else(invalid)?;
    if !token.is_signed_for_graph(key) {
        return Err(refuse("Access token validation failure. Signature is invalid."));
    }
    if token.number("exp").is_none_or(|until| until <= shared.now()) {
        return Err(refuse("Lifetime validation failed, the token is expired."));
    }
    let subject = match token.claim("scp") {
        None => Subject::Application { roles: roles(&token) },
        Some(scp) => {
            let oid = id("oid").ok_or_else(invalid)?;
            if let Some(at) = tenant.revoked_at(oid, issue_of(&token)) {
                return Err(revoked(shared, &token, at));
            }
            Subject::User { oid, scopes: words(scp) }
        }
    };
    Ok(Caller { tenant, subject })
}

/// Continuous access evaluation: a client that can take one is told what its next token must satisfy.
fn revoked(shared: &Shared, token: &Unverified, at: i64) -> GraphError {
    let capable = token.claims.get("xms_cc").and_then(Value::as_array);
    let capable = capable.is_some_and(|all| all.iter().any(|one| one == "cp1"));
    let claims = STANDARD.encode(issued_after(at));
    let parameters = format!(", error=\"insufficient_claims\", claims=\"{claims}\"");
    GraphError {
        challenge: Some(challenge(shared, if capable { &parameters } else { "" })),
        ..GraphError::new(
            401,
            "InvalidAuthenticationToken",
            "Continuous access evaluation resulted in challenge with result: InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp",
        )
    }
}

fn challenge(shared: &Shared, parameters: &str) -> String {
    format!(
        "Bearer realm=\"\", authorization_uri=\"{}/common/oauth2/authorize\", client_id=\"{GRAPH_APP_ID}\"{parameters}",
        shared.authority
    )
}

impl Caller {
    /// The signed-in user, if its token has one of `scopes`.
    pub(crate) fn me(&self, scopes: &[&str], denied: impl FnOnce() -> GraphError) -> Result<&User, GraphError> {
        let Subject::User { oid, .. } = &self.subject else {
            return Err(GraphError::new(
                400,
                "BadRequest",
                "/me request is only valid with delegated authentication flow.",
            ));
        };
        if !self.has(scopes) {
            return Err(denied());
        }
        self.find(&oid.to_string())
    }

    /// A user of the caller's tenant. Oneself needs one of `own`, anybody else one of `all`.
    fn user(&self, name: &str, own: &[&str], all: &[&str]) -> Result<&User, GraphError> {
        let user = self.find(name);
        let is_own = user.as_ref().is_ok_and(|user| self.is(user));
        if self.has(all) || (is_own && self.has(own)) { user } else { Err(GraphError::denied()) }
    }

    /// Whether the token has one of these scopes, or, an application's, one of these roles.
    fn has(&self, needed: &[&str]) -> bool {
        let granted = match &self.subject {
            Subject::User { scopes, .. } => scopes,
            Subject::Application { roles } => roles,
        };
        granted.iter().any(|one| needed.contains(&one.as_str()))
    }

    fn is(&self, user: &User) -> bool {
        matches!(self.subject, Subject::User { oid, .. } if oid == user.oid)
    }

    fn find(&self, name: &str) -> Result<&User, GraphError> {
        self.tenant.directory.find_user(name).ok_or_else(|| {
            let message = format!(
                "Resource '{name}' does not exist or one of its queried reference-property objects are not present."
            );
            GraphError::new(404, "Request_ResourceNotFound", message)
        })
    }
}

/// `$select` and the rest of the query options.
pub(crate) type Options = Query<std::collections::BTreeMap<String, String>>;

/// `object` with only the properties that `$select` lists; names that it does not have are passed over.
pub(crate) fn select(object: Value, options: &Options) -> Value {
    let Some(selected) = options.get("$select") else {
        return object;
    };
    let selected: Vec<&str> = selected.split(',').map(str::trim).collect();
    match object {
        Value::Object(mut members) => {
            members.retain(|name, _| name.starts_with("@odata.") || selected.contains(&name.as_str()));
            Value::Object(members)
        }
        other => other,
    }
}

fn profile(shared: &Shared, user: &User, options: &Options) -> Json<Value> {
    let profile = json!({
        "@odata.context": format!("{}/v1.0/$metadata#users/$entity", shared.graph),
        "businessPhones": user.business_phones,
        "displayName": user.display_name,
        "givenName": user.given_name,
        "jobTitle": user.job_title,
        "mail": user.mail,
        "mobilePhone": user.mobile_phone,
        "officeLocation": user.office_location,
        "preferredLanguage": user.preferred_language,
        "surname": user.surname,
        "userPrincipalName": user.user_principal_name,
        "id": user.oid,
    });
    Json(select(profile, options))
}

async fn me(State(shared): State<Arc<Shared>>, caller: Caller, options: Options) -> Result<Json<Value>, GraphError> {
    let user = caller.me(READ_ME, GraphError::denied)?;
    Ok(profile(&shared, user, &options))
}

async fn user(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    caller: Caller,
    options: Options,
) -> Result<Json<Value>, GraphError> {
    let user = caller.user(&name, READ_ME, READ_USERS)?;
    Ok(profile(&shared, user, &options))
}

async fn my_groups(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<Value>, GraphError> {
    let oid = caller.me(&[READ_ME, READ_MEMBERSHIPS].concat(), GraphError::denied)?.oid;
    Ok(group_list(&shared, caller.direct_groups(oid)))
}

async fn my_transitive_groups(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<Value>, GraphError> {
    let oid = caller.me(&[READ_ME, READ_MEMBERSHIPS].concat(), GraphError::denied)?.oid;
    Ok(group_list(&shared, caller.tenant.directory.transitive_groups(oid)))
}

async fn groups(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Json<Value>, GraphError> {
    let oid = caller.user(&name, READ_ME, READ_MEMBER_OF)?.oid;
    Ok(group_list(&shared, caller.direct_groups(oid)))
}

async fn transitive_groups(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Json<Value>, GraphError> {
    let oid = caller.user(&name, READ_ME, READ_MEMBER_OF)?.oid;
    Ok(group_list(&shared, caller.tenant.directory.transitive_groups(oid)))
}

fn group_list(shared: &Shared, groups: Vec<&Group>) -> Json<Value> {
    let entries: Vec<Value> = groups
        .into_iter()
        .map(|group| {
            json!({
                "@odata.type": "#microsoft.graph.group",
                "id": group.id,
                "displayName": group.display_name,
                "securityEnabled": true,
            })
        })
        .collect();
    Json(json!({
        "@odata.context": format!("{}/v1.0/$metadata#directoryObjects", shared.graph),
        "value": entries,
    }))
}

impl Caller {
    /// Whose groups may be asked for by `checkMemberGroups` and the like: the caller's own with a scope for profiles,
    /// anybody else's with one for users and one for groups.
    fn member(&self, name: &str) -> Result<Uuid, GraphError> {
        let user = self.user(name, READ_ME, READ_USERS)?;
        if self.is(user) || self.has(READ_MEMBERSHIPS) { Ok(user.oid) } else { Err(GraphError::denied()) }
    }
}

/// The body of `checkMemberGroups`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckGroups {
    group_ids: Vec<String>,
}

async fn check_my_groups(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Json(body): Json<CheckGroups>,
) -> Result<Json<Value>, GraphError> {
    let oid = caller.me(&[READ_ME, READ_MEMBERSHIPS].concat(), GraphError::denied)?.oid;
    caller.check(&shared, oid, &body)
}

async fn check_groups(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    caller: Caller,
    Json(body): Json<CheckGroups>,
) -> Result<Json<Value>, GraphError> {
    let oid = caller.member(&name)?;
    caller.check(&shared, oid, &body)
}

/// `getMemberGroups` and `getMemberObjects` are one here: a user is a member of groups only, all of them secure.
async fn list_my_groups(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<Value>, GraphError> {
    let oid = caller.me(&[READ_ME, READ_MEMBERSHIPS].concat(), GraphError::denied)?.oid;
    Ok(ids(&shared, caller.group_ids(oid)))
}

async fn list_groups(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    caller: Caller,
) -> Result<Json<Value>, GraphError> {
    let oid = caller.member(&name)?;
    Ok(ids(&shared, caller.group_ids(oid)))
}

impl Caller {
    fn direct_groups(&self, oid: Uuid) -> Vec<&Group> {
        self.tenant.directory.groups.iter().filter(|group| group.members.contains(&oid)).collect()
    }

    fn group_ids(&self, oid: Uuid) -> Vec<String> {
        self.tenant.directory.transitive_groups(oid).iter().map(|group| group.id.to_string()).collect()
    }

    fn check(&self, shared: &Shared, oid: Uuid, body: &CheckGroups) -> Result<Json<Value>, GraphError> {
        if body.group_ids.len() > 20 {
            return Err(GraphError::new(400, "Request_BadRequest", "groupIds has more than the 20 items allowed."));
        }
        let mut member = self.group_ids(oid);
        member.retain(|id| body.group_ids.iter().any(|asked| asked.eq_ignore_ascii_case(id)));
        Ok(ids(shared, member))
    }
}

fn ids(shared: &Shared, ids: Vec<String>) -> Json<Value> {
    Json(json!({
        "@odata.context": format!("{}/v1.0/$metadata#Collection(Edm.String)", shared.graph),
        "value": ids,
    }))
}
