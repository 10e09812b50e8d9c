//! Middleware around every handler: reads the request, possibly answers with a fault, and logs.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, future::ready, stream::once};
use uuid::Uuid;

use crate::{
    authorize::client_request_id,
    client::has_basic_credentials,
    errors::{Aadsts, Failed, Trace},
    keys::Unverified,
    log::{FaultKind, Host, Learnt, Seen, take_fault},
    state::Shared,
    tls::HangUp,
};

/// Maximum size of a request body, in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// Delay until the first half of a body was sent. An immediate reset would overtake it.
const HALF_SENT: Duration = Duration::from_millis(100);

/// The layer of both routers.
pub(crate) async fn observe(
    State((shared, host)): State<(Arc<Shared>, Host)>,
    Extension(hang_up): Extension<HangUp>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let mut seen = see(&shared, host, &parts, &body);
    let fault = {
        let mut state = shared.lock();
        state.log.open(&mut seen);
        take_fault(state.faults(), &seen)
    };
    let entry = Entry { shared: &shared, seen: Some(seen) };
    let mut response = match fault {
        None => next.run(Request::from_parts(parts, Body::from(body))).await,
        Some(FaultKind::Delay { milliseconds }) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            next.run(Request::from_parts(parts, Body::from(body))).await
        }
        Some(fault @ (FaultKind::Disconnect | FaultKind::LoseAnswer)) => {
            if matches!(fault, FaultKind::LoseAnswer) {
                next.run(Request::from_parts(parts, Body::from(body))).await;
            }
            drop(entry);
            hang_up.now();
            // The connection is dropped together with this value.
            match std::future::pending::<std::convert::Infallible>().await {}
        }
        Some(FaultKind::Truncate) => truncated(next.run(Request::from_parts(parts, Body::from(body))).await).await,
        Some(FaultKind::EmptyPage) => empty_page(&shared, &parts.uri),
        Some(FaultKind::Status { status, headers, body }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = (status, body).into_response();
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Some(FaultKind::Aadsts { code, status, error, message, suberror, claims }) => {
            let trace = Trace::new(client_request_id(&parts.headers), shared.now());
            Aadsts::Injected { code, status, error, message, suberror, claims }.into_response(&shared.authority, &trace)
        }
    };
    let learnt = response.extensions_mut().remove::<Learnt>().unwrap_or_default();
    let failed = response.extensions_mut().remove::<Failed>();
    entry.answered(learnt, response.status(), failed.map(|failed| failed.code));
    response
}

/// A request that is being logged. The entry is written even if the client has disconnected.
struct Entry<'a> {
    shared: &'a Shared,
    seen: Option<Seen>,
}

impl Entry<'_> {
    fn answered(mut self, learnt: Learnt, status: StatusCode, aadsts: Option<u32>) {
        if let Some(seen) = self.seen.take() {
            self.shared.lock().log.close(seen, learnt, status.as_u16(), aadsts);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(seen) = self.seen.take() {
            self.shared.lock().log.close(seen, Learnt::default(), 0, None);
        }
    }
}

fn empty_page(shared: &Shared, uri: &Uri) -> Response {
    let query = uri.query().map(|query| format!("{query}&")).unwrap_or_default();
    let next = format!("{}{}?{query}page={}", shared.graph, uri.path(), Uuid::new_v4());
    Json(serde_json::json!({"value": [], "@odata.nextLink": next})).into_response()
}

/// Half of the body with the length of the whole.
async fn truncated(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let half = body.slice(..body.len() / 2);
    parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    let broken = once(async {
        tokio::time::sleep(HALF_SENT).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
    });
    Response::from_parts(parts, Body::from_stream(once(ready(Ok(half))).chain(broken)))
}

fn see(shared: &Shared, host: Host, request: &Parts, body: &[u8]) -> Seen {
    let Parts { method, headers, .. } = request;
    let path = request.uri.path();
    let mut seen = Seen {
        host,
        method: method.to_string(),
        path: path.to_owned(),
        tenant: None,
        grant_type: None,
        client: None,
        user: None,
        client_secret_present: false,
        scopes: Vec::new(),
        claims: None,
        concurrent: 0,
    };
    match host {
        Host::Authority => {
            let tenant = path.split('/').nth(1).and_then(|name| shared.find_tenant(name));
            seen.tenant = tenant.map(|tenant| tenant.directory.id);
            seen.client_secret_present = has_basic_credentials(headers);
            if method == Method::POST {
                see_form(&mut seen, body);
            }
        }
        Host::Graph => see_token(&mut seen, headers),
    }
    seen
}

/// Reads the parameters for the log, even from a malformed request, since refused requests are logged, too.
fn see_form(seen: &mut Seen, body: &[u8]) {
    for (name, value) in url::form_urlencoded::parse(body) {
        match &*name {
            "grant_type" => seen.grant_type = Some(value.into_owned()),
            "client_id" => seen.client = Some(value.into_owned()),
            "client_secret" => seen.client_secret_present = true,
            "scope" => seen.scopes = words(&value),
            "claims" => seen.claims = Some(value.into_owned()),
            _ => {}
        }
    }
}

fn see_token(seen: &mut Seen, headers: &HeaderMap) {
    let Some(token) = bearer(headers).and_then(Unverified::parse) else {
        return;
    };
    let id = |name| token.claim(name).and_then(|id| Uuid::parse_str(id).ok());
    seen.tenant = id("tid");
    seen.client = token.claim("appid").map(ToOwned::to_owned);
    match token.claim("scp") {
        Some(scp) => {
            seen.user = id("oid");
            seen.scopes = words(scp);
        }
        None => seen.scopes = roles(&token),
    }
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The `roles` claim.
pub(crate) fn roles(token: &Unverified) -> Vec<String> {
    let roles = token.claims.get("roles").and_then(serde_json::Value::as_array);
    let roles = roles.into_iter().flatten().filter_map(serde_json::Value::as_str);
    roles.map(ToOwned::to_owned).collect()
}

/// The words of a space-separated list.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(ToOwned::to_owned).collect()
}
