//! Streams of notifications (`subscriptions/listen`). A stream ends with a result when the token ends, its session is
//! revoked, or the server stops.
//!
//! A stream holds a connection while it lasts, so streams are limited for each caller and in total.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;
use tracing::{Instrument, Span};

use super::accept::Accepted;
use super::answer::{self, Refusal};
use super::places::{NoPlace, Place};
use super::{Gate, authorize, events};
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::authorize::{Permissions, Revoked};
use crate::offer::{Change, Offered};
use crate::protocol::{Exchange, Subscription};
use crate::token::Principal;

/// Maximum number of streams of all callers: half of the connections.
pub(super) const MAXIMUM_STREAMS: usize = 512;
/// Maximum number of streams of one caller.
pub(super) const MAXIMUM_OF_CALLER: usize = 16;

/// Answers with a stream of notifications.
pub(super) async fn stage(
    gate: &Arc<Gate>,
    accepted: Accepted,
    mut subscription: Subscription,
    exchange: Exchange,
) -> Result<Response, Refusal> {
    if !accepted.events {
        let text = "notifications are an event stream; send Accept: application/json, text/event-stream";
        let error = ErrorValue::new(code::INVALID_REQUEST, text);
        let response = answer::json_rpc_error(StatusCode::NOT_ACCEPTABLE, subscription.id(), &error);
        return Err(Refusal::new("not_acceptable", response));
    }
    // The validation tolerates a clock skew of a minute. A stream would end as soon as it begins.
    if exchange.principal.remaining().is_zero() {
        let response = gate.challenge.invalid_token("the token has expired; request another one");
        return Err(Refusal::new("expired", response));
    }
    if gate.draining.is_cancelled() {
        return Err(Refusal::new("draining", answer::try_later("this pod is stopping; connect again")));
    }
    let place = gate.answers.streams.take(&exchange.principal).map_err(no_place)?;
    let mut updates = stream::pending().boxed();
    if !subscription.uris().is_empty() {
        let listening = gate.offer.listen(&exchange.principal, subscription.uris().to_vec()).await;
        subscription.listen_only_to(listening.uris);
        updates = listening.updates;
    }
    Ok(events::answer(notifications(gate, place, (subscription, updates), exchange)))
}

fn no_place(no_place: NoPlace) -> Refusal {
    let response = match no_place {
        NoPlace::OfCaller => {
            let text = format!("you already have {MAXIMUM_OF_CALLER} open streams; close one");
            answer::later(StatusCode::TOO_MANY_REQUESTS, &text)
        }
        NoPlace::AtAll => answer::try_later("all streams of this server are in use; try again later"),
    };
    Refusal::new("too_many_streams", response)
}

/// A running stream of notifications.
struct Notifications {
    gate: Arc<Gate>,
    subscription: Subscription,
    principal: Arc<Principal>,
    offered: Arc<Offered>,
    permissions: Permissions,
    /// The revocations when the stream began.
    revoked: Revoked,
    policies: watch::Receiver<()>,
    changes: Option<broadcast::Receiver<Change>>,
    /// The URIs of resources that have changed.
    updates: BoxStream<'static, String>,
    /// Messages to send.
    ready: VecDeque<Bytes>,
    has_ended: bool,
    _place: Place,
}

fn notifications(
    gate: &Arc<Gate>,
    place: Place,
    (subscription, updates): (Subscription, BoxStream<'static, String>),
    exchange: Exchange,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let Exchange { principal, permissions, offered, .. } = exchange;
    let mut policies = gate.policy.changes();
    // Policy and offer may have changed since the verdict.
    policies.mark_changed();
    let stream = Notifications {
        ready: [subscription.acknowledged()].into(),
        revoked: permissions.revoked(),
        policies,
        changes: gate.offer.changes().listen(),
        updates,
        gate: Arc::clone(gate),
        subscription,
        principal,
        offered,
        permissions,
        has_ended: false,
        _place: place,
    };
    let span = Span::current();
    stream::unfold(stream, move |mut stream| {
        async move { stream.next().await.map(|message| (message, stream)) }.instrument(span.clone())
    })
}

impl Notifications {
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
                // The order matters: the messages depend on the policy in force.
                biased;
                () = draining.cancelled() => self.end(),
                () = sleep(self.principal.remaining()) => self.end(),
                changed = self.policies.changed() => match changed {
                    Ok(()) if self.gate.policy.in_force().revoked() == self.revoked => self.look().await,
                    // The revocation may include this session; the client's next request decides.
                    _ => self.end(),
                },
                change = next_change(&mut self.changes) => match change {
                    Some(Change::Resource(uri)) => self.updated(&uri),
                    Some(Change::Offered) => self.look().await,
                    None => {
                        self.look().await;
                        self.ready.extend(self.subscription.all_updated(&self.offered, &self.permissions));
                    }
                },
                Some(uri) = self.updates.next() => self.updated(&uri),
            }
        }
    }

    fn end(&mut self) {
        self.has_ended = true;
        self.ready.push_back(self.subscription.ended());
    }

    fn updated(&mut self, uri: &str) {
        self.ready.extend(self.subscription.updated(uri, &self.offered, &self.permissions));
    }

    /// Compares policy and offer with the last state. Unknown groups allow nothing.
    async fn look(&mut self) {
        if let Ok(offered) = self.gate.offer.snapshot(&self.principal).await {
            self.offered = offered;
        }
        let uris = self.subscription.uris();
        self.permissions = authorize::permissions_to_listen(&self.gate, &self.principal, (&self.offered, uris)).await;
        self.ready.extend(self.subscription.changed(&self.offered, &self.permissions));
    }
}

/// Returns the next change, or none if some were missed. Never returns if the offer cannot change.
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
