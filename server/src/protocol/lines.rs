//! MCP with one client over lines of JSON: messages that are judged already come in, and the answers go out as text.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::RoleServer;
use rmcp::model::{ClientJsonRpcMessage, GetExtensions, ServerJsonRpcMessage};
use rmcp::service::ServerInitializeError;
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
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
        /// Its recording, which is held while it runs.
        recording: Arc<Recording>,
    },
    /// The text of an answer to a request of ours.
    Answer(String),
}

/// Requests that are answered at a time.
const MAXIMUM_UNANSWERED: usize = 256;

/// A reason for which a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Its answer could not be told from another one's.
    #[error("a request of this id is not answered yet; give each request an id of its own")]
    SameId,
    /// There are too many.
    #[error("{MAXIMUM_UNANSWERED} requests are not answered yet; send this one again when some are")]
    TooMany,
}

/// Requests that are not answered yet, by id as JSON.
#[derive(Default)]
pub struct Unanswered {
    ids: Mutex<HashMap<String, Waiting>>,
    changed: Notify,
}

/// The reason for which an answer takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It depends on nobody else.
    ForNobody,
    /// It depends on others, and on the person.
    ForOthers,
}

impl Unanswered {
    /// Notes a request.
    ///
    /// # Errors
    /// If one of this id is not answered yet, or too many are not.
    pub fn begin(&self, id: &Value, waiting: Waiting) -> Result<(), NotTaken> {
        let mut ids = self.lock();
        let is_full = ids.len() >= MAXIMUM_UNANSWERED;
        match ids.entry(id.to_string()) {
            Entry::Occupied(_) => Err(NotTaken::SameId),
            Entry::Vacant(_) if is_full => Err(NotTaken::TooMany),
            Entry::Vacant(entry) => {
                entry.insert(waiting);
                Ok(())
            }
        }
    }

    /// Notes that a request is answered, or will not be.
    pub fn end(&self, id: &Value) {
        self.lock().remove(&id.to_string());
        self.changed.notify_waiters();
    }

    /// Waits until everything is answered that depends on nobody else.
    pub async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.lock().values().any(|waiting| *waiting == Waiting::ForNobody) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    (out, unanswered): (mpsc::Sender<String>, Arc<Unanswered>),
    stop: CancellationToken,
) -> Result<(), String> {
    let lines = Lines { messages, out: out.clone(), unanswered };
    match rmcp_adapter::serve_session(offer, lines, stop).await {
        Ok(()) | Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => Ok(()),
        // It has gone.
        Err(_) if out.is_closed() => Ok(()),
        Err(_) => Err("the client did not begin with initialize or server/discover; it must speak MCP".to_owned()),
    }
}

struct Lines {
    messages: mpsc::Receiver<LetIn>,
    out: mpsc::Sender<String>,
    unanswered: Arc<Unanswered>,
}

impl Transport<RoleServer> for Lines {
    type Error = Gone;

    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = Result<(), Gone>> + Send + 'static {
        let (out, unanswered) = (self.out.clone(), Arc::clone(&self.unanswered));
        let answered = match &message {
            ServerJsonRpcMessage::Response(response) => serde_json::to_value(&response.id).ok(),
            ServerJsonRpcMessage::Error(error) => serde_json::to_value(&error.id).ok(),
            _ => None,
        };
        let text = serde_json::to_string(&message);
        async move {
            let Ok(text) = text else {
                tracing::error!("a message is not as MCP defines it");
                return Ok(());
            };
            let sent = out.send(text).await.map_err(|_| Gone);
            if let Some(id) = answered {
                unanswered.end(&id);
            }
            sent
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
