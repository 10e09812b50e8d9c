//! The way of messages to the client.

use tokio::sync::mpsc;

/// Pieces that wait for the client to read.
const WAITING: usize = 64;

/// A piece of what is sent.
#[derive(Debug)]
pub(super) enum Output {
    /// A message, which more may follow.
    Message(String),
    /// The answer to the request.
    Answer(String),
    /// Bytes as they are, with no framing.
    Bytes(Vec<u8>),
    /// Nothing but that events follow. Means nothing over stdio.
    Events,
    /// An HTTP answer without a message: its status, a header and the body. Means nothing over stdio.
    Status(u16, Option<(&'static str, String)>, String),
    /// The end of this process, after what was sent before.
    Exit(i32),
}

/// A sender of pieces. Over stdio all share one, over HTTP each request has its own.
#[derive(Clone, Debug)]
pub(super) struct Outlet(mpsc::Sender<Output>);

impl Outlet {
    /// An outlet and what it leads to.
    pub(super) fn new() -> (Self, mpsc::Receiver<Output>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Sends a piece, when there is room. Returns false if nobody reads any more.
    pub(super) async fn send(&self, output: Output) -> bool {
        self.0.send(output).await.is_ok()
    }

    /// Waits until nobody reads any more.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}
