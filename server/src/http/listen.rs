//! Streams of news (`subscriptions/listen`). A stream ends with a result at the token's end, when its session is revoked, and
//! when the server stops.
//!
//! A stream holds a connection for as long as it lasts, so that one caller, and all together, have so many and no more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use futures::{Stream, stream};
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::sleep;

use super::accept::Accepted;
use super::answer::{self, Refusal};
use super::{Gate, authorize, events};
use crate::authorize::{Filter, Message, Meta, Method, Permissions};
use crate::offer::{Change, Offered};
use crate::policy::Revoked;
use crate::protocol::{Exchange, Listening};
use crate::token::Principal;

/// Streams of all callers together: half of the connections that there are.
const MAXIMUM_STREAMS: usize = 512;
/// Streams of one caller.
const MAXIMUM_OF_CALLER: usize = 16;
/// Callers whose streams are counted.
const CALLERS: u64 = 10_000;

/// The places of streams.
pub(super) struct Streams {
    all: Arc<Semaphore>,
    of_callers: Cache<(String, String), Arc<Semaphore>>,
}

/// The place of one stream, until it is dropped.
struct Place {
    _all: OwnedSemaphorePermit,
    _of_caller: OwnedSemaphorePermit,
}

impl Streams {
    pub(super) fn new() -> Self {
        let of_callers = Cache::builder().max_capacity(CALLERS).time_to_idle(Duration::from_secs(24 * 3600)).build();
        Self { all: Arc::new(Semaphore::new(MAXIMUM_STREAMS)), of_callers }
    }

    fn place(&self, principal: &Principal) -> Result<Place, Refusal> {
        let caller = (principal.object_id().to_owned(), principal.client_id().to_owned());
        let of_caller = self.of_callers.get_with(caller, || Arc::new(Semaphore::new(MAXIMUM_OF_CALLER)));
        let full = |status, text: &str| Refusal::new("too_many_streams", answer::later(status, text));
        let of_caller = of_caller.try_acquire_owned().map_err(|_| {
            let text = format!("you listen on {MAXIMUM_OF_CALLER} streams already; close one");
            full(StatusCode::TOO_MANY_REQUESTS, &text)
        })?;
        let all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| {
            full(StatusCode::SERVICE_UNAVAILABLE, "all streams of this server are in use; try again later")
        })?;
        Ok(Place { _all: all, _of_caller: of_caller })
    }
}

/// Answers by a stream of news.
pub(super) fn stage(
    gate: &Arc<Gate>,
    accepted: Accepted,
    listening: Listening,
    exchange: Exchange,
) -> Result<Response, Refusal> {
    if !accepted.events {
        let text = "news are an event stream; send Accept: application/json, text/event-stream";
        return Err(Refusal::new("not_acceptable", answer::problem(StatusCode::NOT_ACCEPTABLE, text)));
    }
    let place = gate.answers.streams.place(&exchange.principal)?;
    Ok(events::answer(news(gate, place, listening, exchange)))
}

/// A stream of news on its way.
struct News {
    gate: Arc<Gate>,
    listening: Listening,
    principal: Arc<Principal>,
    offered: Arc<Offered>,
    permissions: Permissions,
    /// What was revoked when the stream began.
    revoked: Revoked,
    policies: watch::Receiver<()>,
    changes: Option<broadcast::Receiver<Change>>,
    /// Messages that are ready.
    ready: VecDeque<Bytes>,
    has_ended: bool,
    _place: Place,
}

fn news(
    gate: &Arc<Gate>,
    place: Place,
    listening: Listening,
    exchange: Exchange,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let Exchange { principal, permissions, offered, .. } = exchange;
    let news = News {
        ready: [listening.acknowledged()].into(),
        revoked: gate.policy.revoked(),
        policies: gate.policy.changes(),
        changes: gate.offer.changes().listen(),
        gate: Arc::clone(gate),
        listening,
        principal,
        offered,
        permissions,
        has_ended: false,
        _place: place,
    };
    stream::unfold(news, async |mut news| news.next().await.map(|message| (message, news)))
}

impl News {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            if self.has_ended {
                return None;
            }
            let draining = self.gate.draining.clone();
            tokio::select! {
                () = sleep(self.principal.remaining()) => self.end(),
                () = draining.cancelled() => self.end(),
                changed = self.policies.changed() => match changed {
                    Ok(()) if self.gate.policy.revoked() == self.revoked => self.look().await,
                    // The session may be among those that are revoked: the next request tells.
                    _ => self.end(),
                },
                change = next_change(&mut self.changes) => match change {
                    Some(Change::Resource(uri)) => self.updated(&uri),
                    Some(Change::Offered) | None => self.look().await,
                },
            }
        }
    }

    fn end(&mut self) {
        self.has_ended = true;
        self.ready.push_back(self.listening.ended());
    }

    fn updated(&mut self, uri: &str) {
        self.ready.extend(self.listening.updated(uri, &self.offered, &self.permissions));
    }

    /// Looks at everything anew. What cannot be learnt now is not allowed.
    async fn look(&mut self) {
        if let Ok(offered) = self.gate.offer.snapshot(&self.principal).await {
            self.offered = offered;
        }
        let message = Message { id: None, method: Method::Listen(Filter::default()), meta: Meta::default() };
        match authorize::judged(&self.gate, &self.principal, &message, &self.offered).await {
            Ok((permissions, _)) => self.permissions = permissions,
            Err(_) => self.permissions = self.gate.policy.permissions(Arc::clone(self.principal.caller())),
        }
        self.ready.extend(self.listening.changed(&self.offered, &self.permissions));
    }
}

/// The next change. None if some were missed. An offer that never changes has none.
async fn next_change(changes: &mut Option<broadcast::Receiver<Change>>) -> Option<Change> {
    let Some(receiver) = changes else { return std::future::pending().await };
    match receiver.recv().await {
        Ok(change) => Some(change),
        Err(broadcast::error::RecvError::Lagged(_)) => None,
        Err(broadcast::error::RecvError::Closed) => {
            *changes = None;
            std::future::pending().await
        }
    }
}
