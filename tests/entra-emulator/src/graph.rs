//! Microsoft Graph v1.0: its routes, their callers and permissions, and its errors. The caller's token is checked here;
//! only Graph may read it.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    authorize::client_request_id,
    calendar,
    claims::{issue_of, issued_after},
    configuration::{Tenant, User},
    keys::Unverified,
    mail,
    observe::{bearer, roles, words},
    resource::{GRAPH_APP_ID, GRAPH_URL},
    state::{Shared, TenantState},
    users,
};

/// Routes of Graph's host, except `$batch`.
pub(crate) fn router() -> Router<Arc<Shared>> {
    let mut router = Router::new();
    for user in ["/v1.0/me", "/v1.0/users/{user}"] {
        let at = |path| format!("{user}{path}");
        router = router
            .route(user, get(users::profile))
            .route(&at("/messages"), get(mail::messages))
            .route(&at("/messages/{message}"), get(mail::message))
            .route(&at("/sendMail"), post(mail::send))
            .route(&at("/events"), post(calendar::create))
            .route(&at("/memberOf"), get(users::groups))
            .route(&at("/transitiveMemberOf"), get(users::transitive_groups))
            .route(&at("/checkMemberGroups"), post(users::check_groups))
            .route(&at("/getMemberGroups"), post(users::member_groups))
            .route(&at("/getMemberObjects"), post(users::member_groups));
    }
    router
        .fallback(async || {
            GraphError::new(400, "BadRequest", "Resource not found for the segment: the emulator does not have it.")
        })
        .layer(from_fn(identify))
}

/// Adds Graph's ids to every answer, in the headers and in the body of an error.
pub(crate) async fn identify(request: Request, next: Next) -> Response {
    let request_id = Uuid::new_v4().to_string();
    let client_id = client_request_id(request.headers()).unwrap_or(&request_id).to_owned();
    let mut response = next.run(request).await;
    if response.status().is_client_error() && response.extensions().get::<GraphError>().is_none() {
        // Refusal of the framework: a body, a query or a method.
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

/// An error in Graph's format; `identify` writes its body.
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

    pub(crate) fn denied() -> Self {
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

/// Caller of Graph: the result of checking the token.
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

/// Continuous access evaluation: a client that supports it gets the claims that its next token must satisfy.
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

/// User that the path names.
pub(crate) enum Target {
    /// `/me`
    Me,
    /// `/users/{user}`: a principal name or an object id.
    User(String),
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = GraphError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, GraphError> {
        let unreadable = |_| GraphError::new(400, "BadRequest", "The request's path cannot be read.");
        let path = RawPathParams::from_request_parts(parts, state).await.map_err(unreadable)?;
        let user = path.iter().find(|(name, _)| *name == "user");
        Ok(user.map_or(Self::Me, |(_, user)| Self::User(user.to_owned())))
    }
}

/// Permissions that a request needs, one of each list.
pub(crate) struct Permissions {
    /// Scopes of a user, for the user's own data.
    pub(crate) own: &'static [&'static str],
    /// Scopes of a user, for data of other users.
    pub(crate) others: &'static [&'static str],
    /// Roles of an application.
    pub(crate) application: &'static [&'static str],
    /// The refusal.
    pub(crate) denied: fn() -> GraphError,
}

impl Caller {
    /// User that the path names, if the caller's token allows it.
    pub(crate) fn user(&self, target: &Target, permissions: &Permissions) -> Result<&User, GraphError> {
        let user = match (target, &self.subject) {
            (Target::Me, Subject::User { oid, .. }) => self.find(&oid.to_string()),
            (Target::User(name), _) => self.find(name),
            (Target::Me, Subject::Application { .. }) => {
                let message = "/me request is only valid with delegated authentication flow.";
                return Err(GraphError::new(400, "BadRequest", message));
            }
        };
        let (granted, needed) = match &self.subject {
            Subject::User { scopes, .. } if user.as_ref().is_ok_and(|user| self.is(user)) => (scopes, permissions.own),
            Subject::User { scopes, .. } => (scopes, permissions.others),
            Subject::Application { roles } => (roles, permissions.application),
        };
        // A caller without permission does not learn whether the user exists.
        if granted.iter().any(|one| needed.contains(&one.as_str())) { user } else { Err((permissions.denied)()) }
    }

    /// Returns whether it is the signed-in user.
    pub(crate) fn is(&self, user: &User) -> bool {
        matches!(self.subject, Subject::User { oid, .. } if oid == user.oid)
    }

    /// Returns whether the caller has this permission.
    pub(crate) fn has(&self, permission: &str) -> bool {
        let (Subject::User { scopes: granted, .. } | Subject::Application { roles: granted }) = &self.subject;
        granted.iter().any(|one| one == permission)
    }

    pub(crate) fn directory(&self) -> &Tenant {
        &self.tenant.directory
    }

    fn find(&self, name: &str) -> Result<&User, GraphError> {
        self.directory().find_user(name).ok_or_else(|| {
            let message = format!(
                "Resource '{name}' does not exist or one of its queried reference-property objects are not present."
            );
            GraphError::new(404, "Request_ResourceNotFound", message)
        })
    }
}

/// `$select` and the rest of the query options.
pub(crate) type Options = Query<std::collections::BTreeMap<String, String>>;

/// `object` with only the properties in `$select`. Unknown names are ignored.
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
