//! The hand-over to the protocol, with everything that it is to know of the request.

use axum::extract::Request;
use axum::response::Response;
use tower::ServiceExt;

use super::answer;
use crate::protocol::{Exchange, HttpService};

/// The answer to a judged message.
pub(super) async fn stage(service: &HttpService, mut request: Request, exchange: &Exchange) -> Response {
    request.extensions_mut().insert(exchange.clone());
    let Ok(answer) = service.clone().oneshot(request).await;
    answer::in_json(answer).await
}
