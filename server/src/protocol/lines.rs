//! MCP with one client over lines of JSON: messages that are judged already come in, and the answers go out as text.

use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{ClientJsonRpcMessage, GetExtensions, ServerJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Exchange, rmcp_adapter};
use crate::audit::Recording;
use crate::offer::Offer;

/// A message that is let in.
pub enum LetIn {
    /// A request or a notification.
    Judged {
        /// The text of the message as it was judged.
        text: String,
        /// Everything that the protocol is to know of it.
        exchange: Box<Exchange>,
        /// Its recording, which is held until it is answered or cancelled.
        recording: Arc<Recording>,
    },
    /// The text of an answer to a request of ours.
    Answer(String),
}

/// The client is no longer there.
#[derive(Debug, thiserror::Error)]
#[error("the client takes no more messages")]
struct Gone;

/// Speaks MCP with one client, until no more messages come or `stop` is cancelled. The messages to the client go out as
/// JSON texts, in their order.
///
/// # Errors
/// In words, if the client's first messages are not those of MCP.
pub async fn serve_lines(
    offer: Arc<dyn Offer>,
    messages: mpsc::Receiver<LetIn>,
    out: mpsc::Sender<String>,
    stop: CancellationToken,
) -> Result<(), String> {
    let session = rmcp_adapter::serve_session(offer, Lines { messages, out }, stop).await;
    session.map_err(|_| "the client did not begin with initialize or server/discover; it must speak MCP".to_owned())
}

struct Lines {
    messages: mpsc::Receiver<LetIn>,
    out: mpsc::Sender<String>,
}

impl Transport<RoleServer> for Lines {
    type Error = Gone;

    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = Result<(), Gone>> + Send + 'static {
        let (out, text) = (self.out.clone(), serde_json::to_string(&message));
        async move {
            let Ok(text) = text else {
                tracing::error!("a message is not as MCP defines it");
                return Ok(());
            };
            out.send(text).await.map_err(|_| Gone)
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            // A text that rmcp does not understand, or for something else, is an answer to nothing of ours.
            let read = |text: &str| serde_json::from_str::<ClientJsonRpcMessage>(text).ok();
            match self.messages.recv().await? {
                LetIn::Judged { text, exchange, recording } => {
                    let Some(mut message) = read(&text) else { continue };
                    if let ClientJsonRpcMessage::Request(request) = &mut message {
                        let extensions = request.request.extensions_mut();
                        extensions.insert(*exchange);
                        extensions.insert(recording);
                    }
                    return Some(message);
                }
                LetIn::Answer(text) => {
                    let answer = read(&text).filter(|message| {
                        matches!(message, ClientJsonRpcMessage::Response(_) | ClientJsonRpcMessage::Error(_))
                    });
                    if answer.is_some() {
                        return answer;
                    }
                }
            }
        }
    }

    async fn close(&mut self) -> Result<(), Gone> {
        self.messages.close();
        Ok(())
    }
}
