//! Requests that change something in Graph, such as sending a mail. Each is sent at most once.
//!
//! Graph may have carried out a request even if its answer is lost. So a request is never repeated, and never
//! cancelled when the caller stops waiting. Only the HTTP client repeats a request that provably reached no server.

use std::sync::Arc;

use http::StatusCode;
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::Graph;
use super::error::{GraphError, GraphRefusal};
use super::question::{ATTEMPT, MAXIMUM_ANSWER, TOTAL, authorized};
use super::turns::Turn;
use crate::entra::GraphToken;
use crate::http_client::{self, Answer};

/// A request that is sent at most once. Making it consumes the body, sending consumes the request, and it cannot be
/// copied.
struct OnceOnly {
    request: RequestBuilder,
    id: String,
    /// The request's turn in the queue, kept to its end.
    turn: Turn,
    /// Running requests of this kind.
    running: TaskTracker,
}

impl Graph {
    pub(super) async fn once(&self, path: &'static str, body: Value) -> Result<Value, GraphError> {
        let end = Instant::now() + TOTAL;
        let late = Err(GraphError::TooSlow { seconds: (TOTAL - ATTEMPT).as_secs() });
        let (request, token) = timeout_at(end - ATTEMPT, self.prepare(path, body)).await.unwrap_or(late)?;
        match request.send().await {
            Err(GraphError::Refused(mut refusal)) if refusal.is_of_the_token() => {
                // A new token only helps the next call.
                let challenge = refusal.challenge.take();
                let another = timeout_at(end, self.access.instead_of(&token, challenge.as_ref())).await;
                another.unwrap_or(Ok(token)).and(Err(GraphError::Refused(refusal)))
            }
            answer => answer,
        }
    }

    /// Prepares the request: waits for its token and its turn.
    async fn prepare(&self, path: &'static str, body: Value) -> Result<(OnceOnly, Arc<GraphToken>), GraphError> {
        let queue = self.queue_of(path).await;
        let token = self.access.token().await?;
        let turn = self.turn(&queue).await?;
        let id = Uuid::new_v4().to_string();
        let client = &self.client.0;
        let request = authorized(client.http.post(self.url(path)).json(&body), &token, &id);
        Ok((OnceOnly { request, id, turn, running: client.once_only.clone() }, token))
    }
}

impl OnceOnly {
    /// Sends the request. It runs to its end or deadline even if nobody waits for the answer; the program's stop
    /// waits for it.
    async fn send(self) -> Result<Value, GraphError> {
        let Self { request, id, turn, running } = self;
        let sending = running.spawn(async move {
            let _turn = turn;
            http_client::exchange(request, MAXIMUM_ANSWER).await
        });
        match sending.await {
            Ok(Ok(answer)) => read(&answer, &id),
            Ok(Err(error)) => Err(unconfirmed(error.to_string(), &id)),
            Err(error) => Err(unconfirmed(error.to_string(), &id)),
        }
    }
}

/// Parses Graph's answer. Returns null without a body.
fn read(answer: &Answer, id: &str) -> Result<Value, GraphError> {
    let status = answer.status;
    if status.is_success() {
        return match answer.body.as_slice() {
            [] => Ok(Value::Null),
            body => serde_json::from_slice(body).map_err(|_| unconfirmed("its answer is not JSON".to_owned(), id)),
        };
    }
    // A gateway may answer 408 and other 5xx before Graph sees the request, or in the middle of its work.
    let is_of_a_gateway = status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT;
    if is_of_a_gateway && status != StatusCode::SERVICE_UNAVAILABLE {
        return Err(unconfirmed(format!("its answer is HTTP {}", status.as_u16()), id));
    }
    Err(GraphError::Refused(Box::new(GraphRefusal::read(answer, id))))
}

fn unconfirmed(problem: String, id: &str) -> GraphError {
    GraphError::Unconfirmed { problem, client_request_id: id.to_owned() }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn an_answer_is_a_result_a_refusal_or_proves_nothing() {
        for (status, body, expected) in [
            (202, "", "null"),
            (204, "", "null"),
            (201, r#"{"id":"1"}"#, r#"{"id":"1"}"#),
            (200, "<html>", "unconfirmed"),
            (302, "", "refused"),
            (400, "", "refused"),
            (401, "", "refused"),
            (408, "", "unconfirmed"),
            (429, "", "refused"),
            (503, "", "refused"),
            (500, "", "unconfirmed"),
            (502, "<html>", "unconfirmed"),
            (504, "", "unconfirmed"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() };
            let read = match read(&answer, "c1") {
                Ok(value) => value.to_string(),
                Err(GraphError::Refused(_)) => "refused".to_owned(),
                Err(GraphError::Unconfirmed { .. }) => "unconfirmed".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(read, expected, "{status}");
        }
    }

    #[test]
    fn a_request_that_is_not_confirmed_is_not_said_to_have_failed() {
        let text = unconfirmed("reset".to_owned(), "c1").to_string();
        for part in ["(reset)", "may have carried it out", "before you call again", "client-request-id c1"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
