//! Microsoft Graph v1.0: `$batch`. Its items are handled like any other request: logged, subject to faults, and
//! answered one by one.

use std::collections::{HashMap, HashSet};

use axum::{
    Extension, Json, Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, Method, Request, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

use crate::{graph::GraphError, keys::random_token, tls::HangUp};

/// Maximum number of requests in a batch.
const LIMIT: usize = 20;

/// The body of a batch.
#[derive(Deserialize)]
pub(crate) struct Batch {
    requests: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: String,
    method: String,
    /// Path after the version, such as `/me`.
    url: String,
    #[serde(default)]
    headers: HashMap<String, String>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    depends_on: Vec<String>,
}

/// `POST /v1.0/$batch`: sends each item to `graph`, the router of all other paths. The order of the answers has no
/// meaning.
pub(crate) async fn batch(
    State(graph): State<Router>,
    Extension(hang_up): Extension<HangUp>,
    headers: HeaderMap,
    Json(batch): Json<Batch>,
) -> Result<Json<Value>, GraphError> {
    check(&batch.requests)?;
    let mut answers: HashMap<String, Value> = HashMap::new();
    let mut waiting = batch.requests;
    while !waiting.is_empty() {
        let (ready, rest): (Vec<Item>, Vec<Item>) =
            waiting.into_iter().partition(|item| item.depends_on.iter().all(|id| answers.contains_key(id)));
        if ready.is_empty() {
            return Err(refused("dependsOn goes in a circle."));
        }
        for item in ready {
            let failed = |id: &String| answers.get(id).and_then(|answer| answer.get("status")).is_none_or(is_failure);
            let answer = if item.depends_on.iter().any(failed) {
                let error = json!({"code": "FailedDependency", "message": "The request depends on one that failed."});
                json!({"id": item.id, "status": 424, "headers": {}, "body": {"error": error}})
            } else {
                let request = request(&item, &headers, hang_up.clone())?;
                let response = graph.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
                answer(&item.id, response).await
            };
            answers.insert(item.id, answer);
        }
        waiting = rest;
    }
    let mut responses: Vec<Value> = answers.into_values().collect();
    responses.sort_by_cached_key(|_| random_token());
    Ok(Json(json!({"responses": responses})))
}

fn refused(message: &str) -> GraphError {
    GraphError::new(400, "BadRequest", message)
}

fn check(items: &[Item]) -> Result<(), GraphError> {
    if items.len() > LIMIT {
        return Err(refused("The number of batch requests exceeds the maximum of 20."));
    }
    let ids: HashSet<&String> = items.iter().map(|item| &item.id).collect();
    if ids.len() < items.len() {
        return Err(refused("The ids of batch requests are not unique."));
    }
    if items.iter().any(|item| item.depends_on.iter().any(|id| !ids.contains(id))) {
        return Err(refused("dependsOn names a request that is not in the batch."));
    }
    if items.iter().any(|item| !item.url.starts_with('/') || item.url.starts_with("/$batch")) {
        return Err(refused("A batch request's url begins with a segment such as /me."));
    }
    Ok(())
}

fn is_failure(status: &Value) -> bool {
    status.as_u64().is_none_or(|status| status >= 400)
}

/// An item as a separate request. It has the batch's token unless it has its own.
fn request(item: &Item, batch: &HeaderMap, hang_up: HangUp) -> Result<Request<Body>, GraphError> {
    let method = Method::from_bytes(item.method.as_bytes()).map_err(|_| refused("A batch request has no method."))?;
    let mut request = Request::builder().method(method).uri(format!("/v1.0{}", item.url)).extension(hang_up);
    for (name, value) in &item.headers {
        request = request.header(name, value);
    }
    if let Some(token) = batch.get(header::AUTHORIZATION)
        && !item.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"))
    {
        request = request.header(header::AUTHORIZATION, token);
    }
    let body = item.body.as_ref().map_or_else(Body::empty, |body| Body::from(body.to_string()));
    request.body(body).map_err(|_| refused("A batch request's url or headers cannot be read."))
}

async fn answer(id: &str, response: Response) -> Value {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let headers: Map<String, Value> = parts
        .headers
        .iter()
        .filter(|(name, _)| *name != header::CONTENT_LENGTH)
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.into())))
        .collect();
    let mut answer = json!({"id": id, "status": parts.status.as_u16(), "headers": headers});
    if let (false, Value::Object(members)) = (body.is_empty() || parts.status == StatusCode::NO_CONTENT, &mut answer) {
        // Content other than JSON is encoded in base64.
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| STANDARD.encode(&body).into());
        members.insert("body".to_owned(), body);
    }
    answer
}
