//! The protocol's answer as HTTP. A call that takes long or reports progress is answered with an event stream, if the
//! client accepts one. Every other answer is JSON.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{FutureExt, Stream, stream};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use super::accept::Accepted;
use super::answer::{self, Refusal};
use super::places::Places;
use super::{Gate, events, needs, subscriptions};
use crate::audit::{Outcome, Trail};
use crate::authorize::Message;
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::protocol::{Answer, Exchange, Finished, Running, Step};
use crate::token::Principal;

/// Time after which a call is answered with an event stream.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Longest time of a call with an open stream. Without a stream, the limit of requests applies.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Most calls of clients before 2026-07-28 that outlive their connection. Further ones end with it.
const MAXIMUM_DETACHED: usize = 256;
/// Most such calls of one caller.
const MAXIMUM_DETACHED_OF_CALLER: usize = 32;

/// Passes a judged message to the protocol and answers.
pub(super) async fn stage(
    gate: &Arc<Gate>,
    trail: &Trail,
    accepted: Accepted,
    message: Message,
    (exchange, outcome): (Exchange, Outcome),
) -> Result<Response, Refusal> {
    let id = message.answer_id().clone();
    let answer = gate.protocol.answer(message, &exchange);
    if let Answer::Subscribed(subscription) = answer {
        let response = subscriptions::stage(gate, accepted, *subscription, exchange).await?;
        trail.decided(outcome);
        return Ok(response);
    }
    // Recorded early, so that a client that hangs up leaves an audit line.
    trail.decided(outcome);
    match answer {
        Answer::Now(text) => Ok(json(StatusCode::OK, text)),
        Answer::Nothing | Answer::Subscribed(_) => Ok(StatusCode::ACCEPTED.into_response()),
        Answer::Failed(error) => Ok(answer::json_rpc_error(status(&exchange, error.code), &id, &error)),
        Answer::Later(call) => {
            if let Some(needed) = needs::pending(gate, trail, &exchange).await {
                return Ok(needed);
            }
            let call = match exchange.revision.is_modern() {
                true => call,
                false => gate.answers.detached.detach(call, &exchange.principal),
            };
            Ok(run(gate, trail, accepted, call, exchange).await)
        }
    }
}

/// Calls of clients before 2026-07-28. For them a disconnect is not a cancellation, so their calls run to the end, up
/// to a limit.
pub(super) struct Detached {
    places: Arc<Places>,
    running: TaskTracker,
    end: CancellationToken,
}

impl Default for Detached {
    fn default() -> Self {
        let places = Places::new(MAXIMUM_DETACHED, MAXIMUM_DETACHED_OF_CALLER);
        Self { places, running: TaskTracker::new(), end: CancellationToken::new() }
    }
}

impl Detached {
    /// Makes the call run to its end even if nobody waits for it.
    fn detach(&self, call: Running, principal: &Principal) -> Running {
        let Ok(place) = self.places.take(principal) else { return call };
        let (running, end) = (self.running.clone(), self.end.clone());
        call.run_by(move |call| {
            let bounded = async move {
                let _place = place;
                end.run_until_cancelled(timeout(TIME_LIMIT, call)).await?.ok()
            };
            running.spawn(bounded.in_current_span()).map(|ended| ended.ok().flatten()).boxed()
        })
    }

    /// Ends all detached calls.
    pub(super) async fn end(&self) {
        self.end.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

/// Returns the answer of a call: JSON if it ends soon and without a notice, otherwise an event stream.
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

/// Returns the messages of a call with an open stream. A challenge is no longer possible; the next call gets it.
fn messages(
    gate: Arc<Gate>,
    call: Running,
    exchange: Exchange,
    first: Option<Bytes>,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let (deadline, span) = (Instant::now() + TIME_LIMIT, Span::current());
    let state = (Some(call), first, gate, exchange);
    let step = move |(call, first, gate, exchange): (Option<Running>, Option<Bytes>, Arc<Gate>, Exchange)| async move {
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
    };
    stream::unfold(state, move |state| step(state).instrument(span.clone()))
}

async fn finish(gate: &Gate, trail: &Trail, finished: Finished, exchange: &Exchange) -> Response {
    if let Some(better) = needs::stage(gate, trail, exchange, finished.need.as_ref()).await {
        return better;
    }
    json(finished.error.map_or(StatusCode::OK, |code| status(exchange, code)), finished.message)
}

/// Returns the status of an error. Clients of earlier revisions expect it in a 200.
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
