//! MCP for any offer: revisions, headers, envelope, lists, calls, subscriptions.
//!
//! The transport (HTTP, or the lines of a child process) authenticates a request, decides about it, and passes it on
//! with an [`Exchange`]. [`Protocol::answer`] answers at once if possible. A call becomes a [`Running`], which may
//! report its progress to the client before it is [`Finished`]. A listening client becomes a [`Subscription`].

mod calls;
mod description;
mod entries;
mod envelope;
mod exchange;
mod headers;
mod lines;
mod lists;
mod revision;
mod running;
mod subscription;
mod unanswered;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::body::Bytes;
use serde_json::Value;

pub use calls::{Finished, Need};
pub use exchange::{Asks, Exchange};
pub use headers::{method_and_name, parameters, revision};
pub use lines::{LetIn, Outgoing, serve_lines};
pub use revision::Revision;
pub use running::{Running, Step};
pub use subscription::Subscription;
pub use unanswered::{NotTaken, Unanswered, Waiting};

use crate::authorize::json_rpc::ErrorValue;
use crate::authorize::{Message, Method};
use crate::offer::Offer;
use description::Description;
use lists::Lists;

/// MCP for one offer.
pub struct Protocol {
    offer: Arc<dyn Offer>,
    description: ArcSwap<Description>,
    has_subscriptions: bool,
    server_info: Arc<Value>,
    lists: Lists,
}

/// The answer to a message.
pub enum Answer {
    /// This message, as JSON text.
    Now(Bytes),
    /// The end of a call, which must be awaited.
    Later(Running),
    /// Notifications while the client listens.
    Subscribed(Box<Subscription>),
    /// An error.
    Failed(ErrorValue),
    /// Nothing, since the message was a notification.
    Nothing,
}

impl Protocol {
    /// Returns the protocol for this offer.
    pub fn new(offer: Arc<dyn Offer>) -> Self {
        Self::with(offer, true)
    }

    /// Returns the protocol for a transport without subscriptions.
    pub fn without_subscriptions(offer: Arc<dyn Offer>) -> Self {
        Self::with(offer, false)
    }

    fn with(offer: Arc<dyn Offer>, has_subscriptions: bool) -> Self {
        let description = Description::new(offer.about(), has_subscriptions);
        let server_info = description.server_info().clone();
        let lists = Lists::new(server_info.clone());
        let description = ArcSwap::from_pointee(description);
        Self { offer, lists, server_info: Arc::new(server_info), description, has_subscriptions }
    }

    /// Returns the current description of the offer.
    fn description(&self) -> Arc<Description> {
        let (about, known) = (self.offer.about(), self.description.load());
        if Arc::ptr_eq(&about, known.about()) {
            return Arc::clone(&known);
        }
        let new = Arc::new(Description::new(about, self.has_subscriptions));
        self.description.store(Arc::clone(&new));
        new
    }

    /// Returns the answer to an accepted message.
    pub fn answer(&self, message: Message, exchange: &Exchange) -> Answer {
        let Message { id, method, meta } = message;
        let Some(id) = id else { return Answer::Nothing };
        let result = |text: &str| Answer::Now(envelope::result(&id, text));
        match method {
            Method::Initialize { .. } => result(&self.description().initialized(exchange.revision)),
            Method::Discover => result(self.description().discovered()),
            // Log levels and resource subscriptions are not stored: clients of these revisions have neither session nor
            // stream.
            Method::Ping | Method::SetLogLevel | Method::Subscribe { .. } => result("{}"),
            Method::List { of, cursor } => {
                let asked = (of, cursor.as_deref());
                match self.lists.page(asked, &exchange.offered, &exchange.permissions, exchange.revision) {
                    Ok(page) => result(&page),
                    Err(failure) => Answer::Failed(failure.into()),
                }
            }
            Method::Use { operation, input } => Answer::Later(self.call((id, operation, input), meta, exchange)),
            Method::Complete(completing) => Answer::Later(self.complete(id, completing, exchange)),
            Method::Listen(filter) => Answer::Subscribed(Box::new(self.listen(id, filter, exchange))),
            Method::Cancelled { .. } | Method::Notification(_) | Method::UnknownNotification => Answer::Nothing,
        }
    }
}
