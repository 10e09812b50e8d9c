//! The connection to the MCP client. It parses, judges and records lines from standard input, and writes answers to
//! standard output, which carries nothing else.

use std::sync::Arc;
use std::time::Duration;

use futures::future::FusedFuture;
use futures::{FutureExt, StreamExt};
use mcp_entra_policy::{CompiledPolicy, GraphAccess, built_in_tool};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::{AuditLog, Outcome, Recording, Target, Trail};
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::authorize::{Message, Method, Permissions, PolicyInForce, Verdict, judge};
use crate::offer::{JsonObject, Offer, Offered};
use crate::protocol::{Exchange, LetIn, Outgoing, Revision, Waiting, serve_lines};
use crate::strict_json;
use crate::token::Principal;

/// Longest line that is read, in bytes. Messages over HTTP have the same limit.
const MAXIMUM_LINE: usize = 128 * 1024;
/// Most lines that wait on each side while the other is slow.
const WAITING: usize = 64;
/// Longest wait of a message for room in the audit log.
const AUDIT_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Longest wait at the end of standard input, for answers that need no other party and for their lines.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The client and its service.
pub(super) struct Connection {
    pub(super) principal: Arc<Principal>,
    pub(super) policy: CompiledPolicy,
    pub(super) offer: Arc<dyn Offer>,
    pub(super) audit: Arc<AuditLog>,
}

/// The outcome of a message.
enum Fate {
    LetIn(Box<Exchange>),
    Refused(ErrorValue),
}

impl Connection {
    /// Serves the client until its input ends or its output accepts no more.
    pub(super) async fn serve(
        self,
        input: impl AsyncRead + Unpin + Send + 'static,
        output: impl AsyncWrite + Unpin + Send + 'static,
    ) {
        let (out, lines) = mpsc::channel(WAITING);
        let (let_in, messages) = mpsc::channel(WAITING);
        let outgoing = Outgoing { lines: out, unanswered: Arc::default() };
        let mut writing = tokio::spawn(write(output, lines)).fuse();
        let reader = Reader::new(&self, let_in.clone(), outgoing.clone());
        let stop = CancellationToken::new();
        {
            let unanswered = Arc::clone(&outgoing.unanswered);
            let session = serve_lines(Arc::clone(&self.offer), messages, outgoing, stop.clone());
            let mut session = std::pin::pin!(session);
            tokio::select! {
                () = &mut session => {}
                _ = tokio::spawn(reader.read(input)) => {
                    let settled = tokio::time::timeout(LAST_ANSWERS, unanswered.settled());
                    tokio::select! {
                        () = &mut session => {}
                        _ = settled => {}
                    }
                }
                _ = &mut writing => {}
            }
        }
        stop.cancel();
        drop(let_in);
        // The last lines are being written, unless nobody reads them.
        if !writing.is_terminated() {
            _ = tokio::time::timeout(LAST_LINES, &mut writing).await;
        }
    }
}

/// Writes lines until there are no more senders, or nobody reads them.
async fn write(mut output: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<String>) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        if output.write_all(line.as_bytes()).await.is_err() || output.flush().await.is_err() {
            return;
        }
    }
}

/// The reader of a client's lines.
struct Reader {
    principal: Arc<Principal>,
    permissions: Permissions,
    offer: Arc<dyn Offer>,
    audit: Arc<AuditLog>,
    let_in: mpsc::Sender<LetIn>,
    outgoing: Outgoing,
    /// The session after the client's handshake.
    session: Option<Begun>,
    /// True after the client has started a session or needs none. Earlier notifications belong to no session.
    is_heard: bool,
}

/// A client's session.
struct Begun {
    /// The default revision of messages.
    revision: Revision,
    /// Capabilities of the client for all messages.
    capabilities: Arc<JsonObject>,
}

impl Reader {
    fn new(connection: &Connection, let_in: mpsc::Sender<LetIn>, outgoing: Outgoing) -> Self {
        let Connection { principal, policy, offer, audit } = connection;
        let policy = Arc::new(PolicyInForce::new(policy.clone(), String::new()));
        Self {
            permissions: Permissions::new(Arc::clone(principal.caller()), policy),
            principal: Arc::clone(principal),
            offer: Arc::clone(offer),
            audit: Arc::clone(audit),
            let_in,
            outgoing,
            session: None,
            is_heard: false,
        }
    }

    /// Reads until the input ends or nobody listens any more.
    async fn read(mut self, input: impl AsyncRead + Unpin) {
        let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), MAXIMUM_LINE);
        let mut lines = FramedRead::new(input, codec);
        let mut was_too_long = false;
        loop {
            let goes_on = match lines.next().await {
                Some(Ok(line)) => self.line(&line).await,
                Some(Err(AnyDelimiterCodecError::MaxChunkLengthExceeded)) => {
                    was_too_long = true;
                    let text = format!("the message is longer than {MAXIMUM_LINE} bytes; send a shorter one");
                    self.answer(&Value::Null, &ErrorValue::new(code::INVALID_REQUEST, text.as_str())).await
                }
                // The stream reports this once after a line that is too long, and continues.
                None if std::mem::take(&mut was_too_long) => true,
                Some(Err(AnyDelimiterCodecError::Io(_))) | None => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Handles one line. Returns false if nobody listens any more.
    async fn line(&mut self, line: &Bytes) -> bool {
        if line.trim_ascii().is_empty() {
            return true;
        }
        if let Some(answer) = answer(line) {
            return !self.is_heard || self.let_in.send(answer).await.is_ok();
        }
        match Message::parse(line).and_then(|message| message.served_by(&self.offer.about())) {
            Ok(message) => self.message(message).await,
            Err(malformed) => {
                if let Some(recording) = self.record().await {
                    recording.trail().decided(Outcome::Refused(malformed.reason()));
                }
                self.answer(&malformed.id, &malformed.error()).await
            }
        }
    }

    async fn message(&mut self, mut message: Message) -> bool {
        let Some(id) = message.id.clone() else { return self.notification(message).await };
        let target = message.method.target();
        let waiting = if target.is_some() { Waiting::ForOthers } else { Waiting::ForNobody };
        if let Err(error) = self.outgoing.unanswered.begin(&id, waiting) {
            return self.say(&id, &ErrorValue::new(code::INVALID_REQUEST, error.to_string())).await;
        }
        let Some(recording) = self.record().await else {
            let error = "the audit log cannot be written; free space for it, and start the client again";
            return self.answer(&id, &ErrorValue::new(code::INTERNAL_ERROR, error)).await;
        };
        let trail = recording.trail();
        trail.understood(message.method.name(), target);
        let revision = match self.revision(&mut message) {
            Ok(revision) => revision,
            Err(error) => return self.answer(&id, &error).await,
        };
        match self.judge(&message, revision, &trail).await {
            Fate::Refused(error) => self.answer(&id, &error).await,
            Fate::LetIn(exchange) => {
                self.let_in.send(LetIn::Judged { message: Box::new(message), exchange, recording }).await.is_ok()
            }
        }
    }

    /// Returns the revision of a request: the named one, or the session's. A client may send `ping` and
    /// `server/discover` before the handshake.
    fn revision(&mut self, message: &mut Message) -> Result<Revision, ErrorValue> {
        if let Some(revision) = Revision::of(&message.meta)? {
            self.is_heard |= message.method != Method::Discover;
            return Ok(revision);
        }
        match (&message.method, &self.session) {
            (Method::Initialize { revision, capabilities }, _) => {
                let revision = Revision::agreed(revision);
                self.session = Some(Begun { revision, capabilities: Arc::new(capabilities.clone()) });
                self.is_heard = true;
                Ok(revision)
            }
            (_, Some(begun)) => {
                message.meta.capabilities = Some(Arc::clone(&begun.capabilities));
                Ok(begun.revision)
            }
            (Method::Ping | Method::Discover, None) => Ok(Revision::agreed("")),
            (_, None) => {
                let text = "start with initialize, or name the protocol revision in _meta";
                Err(ErrorValue::new(code::INVALID_REQUEST, text))
            }
        }
    }

    /// Passes on a known notification within a session. It has no answer.
    async fn notification(&mut self, message: Message) -> bool {
        if !self.is_heard || message.method == Method::UnknownNotification {
            return true;
        }
        let revision = self.session.as_ref().map_or(Revision::UNNAMED, |begun| begun.revision);
        if let Method::Cancelled { request: Some(request) } = &message.method {
            self.outgoing.unanswered.end(request);
        }
        let Some(recording) = self.record().await else { return true };
        let exchange = Box::new(self.exchange(Arc::default(), None, revision));
        self.let_in.send(LetIn::Judged { message: Box::new(message), exchange, recording }).await.is_ok()
    }

    /// Starts the recording of a request, if there is room for its line.
    async fn record(&self) -> Option<Recording> {
        let recording = self.audit.begin(Uuid::new_v4().to_string(), AUDIT_PATIENCE).await?;
        recording.trail().authenticated(Arc::clone(&self.principal));
        Some(recording)
    }

    async fn judge(&self, message: &Message, revision: Revision, trail: &Trail) -> Fate {
        let offered = match message.method.depends_on_offer() {
            true => match self.offer.snapshot(&self.principal).await {
                Ok(offered) => offered,
                Err(error) => return Fate::Refused(ErrorValue::new(code::INTERNAL_ERROR, error.to_string())),
            },
            false => Arc::<Offered>::default(),
        };
        match judge(&self.permissions, message, &offered) {
            Verdict::Allowed { rule, graph } => {
                trail.decided(Outcome::Granted(rule));
                Fate::LetIn(Box::new(self.exchange(offered, Some(graph), revision)))
            }
            // Handshakes and lists do not matter in the audit log of one person's machine.
            Verdict::Open => Fate::LetIn(Box::new(self.exchange(offered, None, revision))),
            Verdict::NotOffered | Verdict::Refused(_) | Verdict::NeedGroups(_) => {
                let target = message.method.target();
                trail.decided(Outcome::Refused(target.as_ref().map_or("unknown_method", Target::not_offered)));
                Fate::Refused(ErrorValue::new(code::INVALID_PARAMS, not_offered(target)))
            }
        }
    }

    fn exchange(&self, offered: Arc<Offered>, granted: Option<GraphAccess>, revision: Revision) -> Exchange {
        let (principal, permissions) = (Arc::clone(&self.principal), self.permissions.clone());
        Exchange { principal, permissions, offered, granted, revision, asks: None }
    }

    async fn answer(&self, id: &Value, error: &ErrorValue) -> bool {
        self.outgoing.unanswered.end(id);
        self.say(id, error).await
    }

    async fn say(&self, id: &Value, error: &ErrorValue) -> bool {
        self.outgoing.lines.send(error.answer(id).to_string()).await.is_ok()
    }
}

/// Returns the text for an item that is not offered, with the setting that would offer it.
fn not_offered(target: Option<Target>) -> String {
    let Some(Target::Tool(name)) = target else {
        return target.map_or_else(String::new, |target| format!("{} not found", target.kind()));
    };
    match built_in_tool(&name) {
        Some(tool) if tool.writes => {
            format!("tool not found: {name} writes; start this program with --allow {name}")
        }
        Some(tool) => format!("tool not found: {name} needs {} in --scopes", tool.permissions.delegated.join(", ")),
        None => "tool not found".to_owned(),
    }
}

/// Parses an answer to a request of this server.
fn answer(line: &[u8]) -> Option<LetIn> {
    let Value::Object(mut members) = strict_json::from_slice(line).ok()? else { return None };
    if members.contains_key("method") {
        return None;
    }
    let (id, result) = (members.remove("id")?, members.remove("result"));
    (result.is_some() || members.contains_key("error"))
        .then(|| LetIn::Answer { id, result: result.unwrap_or_default() })
}
