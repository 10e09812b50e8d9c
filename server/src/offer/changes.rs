//! Changes of the offer, for listening clients.

use tokio::sync::broadcast;

/// Most changes that wait for a listener. A slower listener compares everything instead.
const WAITING: usize = 64;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The snapshot of the offer may have changed.
    Offered,
    /// The content of the resource with this URI has changed.
    Resource(String),
}

/// The changes of one offer. Every listener receives all of them.
#[derive(Clone, Debug, Default)]
pub struct Changes(Option<broadcast::Sender<Change>>);

impl Changes {
    /// Returns changes that can be sent.
    pub fn new() -> Self {
        Self(Some(broadcast::Sender::new(WAITING)))
    }

    /// Sends a change to the present listeners.
    pub fn tell(&self, change: Change) {
        if let Some(sender) = &self.0 {
            _ = sender.send(change);
        }
    }

    /// Starts to listen. Returns none if nothing ever changes.
    pub fn listen(&self) -> Option<broadcast::Receiver<Change>> {
        self.0.as_ref().map(broadcast::Sender::subscribe)
    }
}
