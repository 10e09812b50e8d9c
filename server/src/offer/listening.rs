//! Updates of resources, for one listening client.

use std::fmt;

use futures::StreamExt;
use futures::stream::{self, BoxStream};

/// The resources that a client listens to, and their updates. Dropping this ends the subscriptions.
pub struct Listening {
    /// URIs of the resources whose updates are reported, in the order of the request.
    pub uris: Vec<String>,
    /// The URI of each resource whose content has changed. The reader of this stream decides who may receive the URI.
    pub updates: BoxStream<'static, String>,
}

impl Listening {
    /// Returns these resources without updates of their own. The changes of the offer include their updates.
    pub fn to_changes(uris: Vec<String>) -> Self {
        Self { uris, updates: stream::pending().boxed() }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Listening").field("uris", &self.uris).finish_non_exhaustive()
    }
}
