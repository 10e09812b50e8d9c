//! Changes of what is offered, for clients that listen.

use tokio::sync::broadcast;

/// Changes that wait for a listener. One that is slower than this looks at everything anew.
const WAITING: usize = 64;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The snapshot of what is offered may be another one.
    Offered,
    /// The content of the resource with this URI.
    Resource(String),
}

/// The changes of one offer. Everybody who listens hears all of them.
#[derive(Clone, Debug, Default)]
pub struct Changes(Option<broadcast::Sender<Change>>);

impl Changes {
    /// Changes that can be told.
    pub fn new() -> Self {
        Self(Some(broadcast::Sender::new(WAITING)))
    }

    /// Tells those who listen now.
    pub fn tell(&self, change: Change) {
        if let Some(sender) = &self.0 {
            _ = sender.send(change);
        }
    }

    /// Listens from now on. None if nothing ever changes.
    pub fn listen(&self) -> Option<broadcast::Receiver<Change>> {
        self.0.as_ref().map(broadcast::Sender::subscribe)
    }
}
