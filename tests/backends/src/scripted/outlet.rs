//! The way of messages to the client.

use tokio::sync::mpsc;

/// Maximum number of pieces that wait for the client to read.
const WAITING: usize = 64;

/// Piece of the output.
#[derive(Debug)]
pub(super) enum Output {
    /// A message that more may follow.
    Message(String),
    /// The answer to the request.
    Answer(String),
    /// Exact bytes, without framing.
    Bytes(Vec<u8>),
    /// Start of events, without content. Has no effect over stdio.
    Events,
    /// An HTTP answer without a message: its status, a header and the body. Has no effect over stdio.
    Status(u16, Option<(&'static str, String)>, String),
    /// The end of this process, after earlier pieces were sent.
    Exit(i32),
}

/// A sender of pieces. Over stdio all share one, over HTTP each request has its own.
#[derive(Clone, Debug)]
pub(super) struct Outlet(mpsc::Sender<Output>);

impl Outlet {
    /// Creates an outlet and its receiver.
    pub(super) fn new() -> (Self, mpsc::Receiver<Output>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Sends a piece, when there is room. Returns false if the client does not read any more.
    pub(super) async fn send(&self, output: Output) -> bool {
        self.0.send(output).await.is_ok()
    }

    /// Waits until the client does not read any more.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}
