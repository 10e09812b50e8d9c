//! The answer of the protocol as HTTP. A call that takes long, or that tells of its progress, is answered by an event stream
//! to clients that read one; every other answer is JSON.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, stream};
use tokio::time::{Instant, sleep, timeout_at};

use super::accept::Accepted;
use super::answer::{self, Refusal};
use super::{Gate, events, listen, needs};
use crate::audit::{Outcome, Trail};
use crate::authorize::Message;
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::protocol::{Answer, Exchange, Finished, Running, Step};

/// Time after which a call is answered by an event stream.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time that a call may take once its stream is open. Without a stream, the limit of requests holds.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Calls that run although their client has gone, at a time. Further ones end with their connection.
pub(super) const MAXIMUM_DETACHED: usize = 256;

/// Hands a judged message to the protocol, and answers.
pub(super) async fn stage(
    gate: &Arc<Gate>,
    trail: &Trail,
    accepted: Accepted,
    message: Message,
    (exchange, outcome): (Exchange, Outcome),
) -> Result<Response, Refusal> {
    let id = message.answer_id().clone();
    let answer = gate.protocol.answer(message, &exchange);
    if let Answer::Listening(listening) = answer {
        let response = listen::stage(gate, accepted, *listening, exchange)?;
        trail.decided(outcome);
        return Ok(response);
    }
    // A client that hangs up before its answer leaves its line.
    trail.decided(outcome);
    match answer {
        Answer::Now(text) => Ok(json(StatusCode::OK, text)),
        Answer::Nothing | Answer::Listening(_) => Ok(StatusCode::ACCEPTED.into_response()),
        Answer::Failed(error) => Ok(answer::json_rpc_error(status(&exchange, error.code), &id, &error)),
        Answer::Later(call) => {
            if let Some(needed) = needs::pending(gate, trail, &exchange).await {
                return Ok(needed);
            }
            let call = if exchange.revision.is_modern() { call } else { detached(gate, call) };
            Ok(run(gate, trail, accepted, call, exchange).await)
        }
    }
}

/// A disconnect was no cancellation before 2026-07-28: the call runs to its end, as long as not too many do.
fn detached(gate: &Gate, call: Running) -> Running {
    match Arc::clone(&gate.answers.detached).try_acquire_owned() {
        Ok(place) => call.detached(place),
        Err(_) => call,
    }
}

/// The answer of a call: JSON if it ends soon and without a notice, else an event stream.
async fn run(gate: &Arc<Gate>, trail: &Trail, accepted: Accepted, mut call: Running, exchange: Exchange) -> Response {
    if !accepted.events {
        let finished = call.finish().await;
        return finish(gate, trail, finished, &exchange).await;
    }
    let first = tokio::select! {
        biased;
        step = call.next() => Some(step),
        () = sleep(PATIENCE) => None,
    };
    match first {
        Some(Step::Finished(finished)) => finish(gate, trail, finished, &exchange).await,
        Some(Step::Notice(notice)) => events::answer(messages(Arc::clone(gate), call, exchange, Some(notice))),
        None => events::slow_answer(messages(Arc::clone(gate), call, exchange, None)),
    }
}

/// The messages of a call whose stream is open. A sign-in that it needs can no more be a challenge: the next call is one.
fn messages(
    gate: Arc<Gate>,
    call: Running,
    exchange: Exchange,
    first: Option<Bytes>,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let deadline = Instant::now() + TIME_LIMIT;
    let state = (Some(call), first, gate, exchange);
    stream::unfold(state, move |(call, first, gate, exchange)| async move {
        let mut call = call?;
        if let Some(first) = first {
            return Some((first, (Some(call), None, gate, exchange)));
        }
        match timeout_at(deadline, call.next()).await {
            Ok(Step::Notice(notice)) => Some((notice, (Some(call), None, gate, exchange))),
            Ok(Step::Finished(finished)) => {
                needs::remember(&gate, &exchange, finished.need).await;
                Some((finished.message, (None, None, gate, exchange)))
            }
            Err(_) => {
                let seconds = TIME_LIMIT.as_secs();
                let error =
                    ErrorValue::new(code::INTERNAL_ERROR, format!("no answer within {seconds} s; try again later"));
                Some((Bytes::from(error.answer(call.id()).to_string()), (None, None, gate, exchange)))
            }
        }
    })
}

async fn finish(gate: &Gate, trail: &Trail, finished: Finished, exchange: &Exchange) -> Response {
    if let Some(better) = needs::stage(gate, trail, exchange, finished.need.as_ref()).await {
        return better;
    }
    json(finished.error.map_or(StatusCode::OK, |code| status(exchange, code)), finished.message)
}

/// The status of an error. Clients of earlier revisions look for it in a 200.
fn status(exchange: &Exchange, error: i32) -> StatusCode {
    match error {
        _ if !exchange.revision.is_modern() => StatusCode::OK,
        code::CAPABILITY_MISSING => StatusCode::BAD_REQUEST,
        code::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

fn json(status: StatusCode, text: Bytes) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
