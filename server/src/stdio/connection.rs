//! The connection to the MCP client: lines from standard input, each parsed, judged and recorded, and lines to standard
//! output, which carries nothing else.

use std::sync::Arc;
use std::time::Duration;

use futures::future::FusedFuture;
use futures::{FutureExt, StreamExt};
use mcp_entra_policy::{CompiledPolicy, built_in_tool};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::{AuditLog, Outcome, Recording, Trail};
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::authorize::{Message, Method, Permissions, PolicyInForce, Verdict, judge};
use crate::offer::{Offer, Offered};
use crate::protocol::{Exchange, Granted, LetIn, Needs, Target, Unanswered, Waiting, serve_lines};
use crate::strict_json;
use crate::token::Principal;

/// The longest line that is read, in bytes: as long as a message over HTTP may be.
const MAXIMUM_LINE: usize = 128 * 1024;
/// Lines that wait on each side while the other is slow.
const WAITING: usize = 64;
/// Time that a message waits for room in the audit log.
const AUDIT_PATIENCE: Duration = Duration::from_secs(10);
/// The notification that a request is given up.
const CANCELLED: &str = "notifications/cancelled";
/// Time for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Longest time for the answers that depend on nobody else, and for their lines, once standard input has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// The members of `_meta` that a request of a client without a handshake names its revision by.
const REVISION: &str = "/params/_meta/io.modelcontextprotocol~1protocolVersion";

/// The client, and what it is served.
pub(super) struct Connection {
    pub(super) principal: Arc<Principal>,
    pub(super) policy: CompiledPolicy,
    pub(super) offer: Arc<dyn Offer>,
    pub(super) audit: Arc<AuditLog>,
}

/// The fate of a message.
enum Fate {
    LetIn(Box<Exchange>),
    Refused(ErrorValue),
}

impl Connection {
    /// Serves the client until its input ends, or its output takes nothing more.
    ///
    /// # Errors
    /// In words, if the client does not speak MCP.
    pub(super) async fn serve(
        self,
        input: impl AsyncRead + Unpin + Send + 'static,
        output: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(), String> {
        let (out, lines) = mpsc::channel(WAITING);
        let (let_in, messages) = mpsc::channel(WAITING);
        let unanswered = Arc::<Unanswered>::default();
        let mut writing = tokio::spawn(write(output, lines)).fuse();
        let reader = Reader::new(&self, let_in.clone(), (out.clone(), Arc::clone(&unanswered)));
        let stop = CancellationToken::new();
        let served = {
            let session = serve_lines(Arc::clone(&self.offer), messages, (out, Arc::clone(&unanswered)), stop.clone());
            let mut session = std::pin::pin!(session);
            tokio::select! {
                ended = &mut session => ended,
                _ = tokio::spawn(reader.read(input)) => {
                    let settled = tokio::time::timeout(LAST_ANSWERS, unanswered.settled());
                    tokio::select! {
                        ended = &mut session => ended,
                        _ = settled => Ok(()),
                    }
                }
                _ = &mut writing => Ok(()),
            }
        };
        stop.cancel();
        drop(let_in);
        // The last lines are on their way, unless nobody takes them.
        if !writing.is_terminated() {
            _ = tokio::time::timeout(LAST_LINES, &mut writing).await;
        }
        served
    }
}

/// Writes lines until nobody sends any more, or nobody takes them.
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
    out: mpsc::Sender<String>,
    unanswered: Arc<Unanswered>,
    /// True once the client has begun a session: what comes before belongs to none.
    has_begun: bool,
}

impl Reader {
    fn new(
        connection: &Connection,
        let_in: mpsc::Sender<LetIn>,
        (out, unanswered): (mpsc::Sender<String>, Arc<Unanswered>),
    ) -> Self {
        let Connection { principal, policy, offer, audit } = connection;
        let policy = Arc::new(PolicyInForce::new(policy.clone(), String::new()));
        Self {
            permissions: Permissions::new(Arc::clone(principal.caller()), policy),
            principal: Arc::clone(principal),
            offer: Arc::clone(offer),
            audit: Arc::clone(audit),
            let_in,
            out,
            unanswered,
            has_begun: false,
        }
    }

    /// Reads until the input ends, or nobody is there any more.
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
                // The stream says so once after a line that is too long, and goes on.
                None if std::mem::take(&mut was_too_long) => true,
                Some(Err(AnyDelimiterCodecError::Io(_))) | None => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Takes one line. Says whether anybody is still there.
    async fn line(&mut self, line: &Bytes) -> bool {
        if line.trim_ascii().is_empty() {
            return true;
        }
        if let Some(text) = answer_text(line) {
            return !self.has_begun || self.let_in.send(LetIn::Answer(text)).await.is_ok();
        }
        match Message::parse(line) {
            Ok((message, text)) => self.message(message, text).await,
            Err(malformed) => {
                if let Some(recording) = self.record().await {
                    recording.trail().decided(Outcome::Refused(malformed.reason()));
                }
                self.answer(&malformed.id, &malformed.error()).await
            }
        }
    }

    async fn message(&mut self, message: Message, text: String) -> bool {
        let Some(id) = &message.id else { return self.notification(&message, text).await };
        let is_call = message.method.tool().is_some();
        let waiting = if is_call { Waiting::ForOthers } else { Waiting::ForNobody };
        if let Err(error) = self.unanswered.begin(id, waiting) {
            return self.say(id, &ErrorValue::new(code::INVALID_REQUEST, error.to_string())).await;
        }
        let Some(recording) = self.record().await else {
            let error = "the audit log takes no more lines; free space for it, and start the client again";
            return self.answer(id, &ErrorValue::new(code::INTERNAL_ERROR, error)).await;
        };
        let trail = recording.trail();
        trail.understood(message.method.name(), message.method.tool());
        match self.judge(&message, &trail).await {
            Fate::Refused(error) => self.answer(id, &error).await,
            Fate::LetIn(exchange) => {
                self.has_begun |= begins(&message.method, &text);
                let recording = Arc::new(recording);
                self.let_in.send(LetIn::Judged { text, exchange, recording }).await.is_ok()
            }
        }
    }

    /// A notification is passed on within a session, if it is known. Nobody waits for an answer.
    async fn notification(&mut self, message: &Message, text: String) -> bool {
        if !self.has_begun || message.method == Method::UnknownNotification {
            return true;
        }
        if message.method == Method::Notification(CANCELLED) {
            let cancelled = serde_json::from_str::<Value>(&text).unwrap_or_default();
            if let Some(id) = cancelled.pointer("/params/requestId") {
                self.unanswered.end(id);
            }
        }
        let Some(recording) = self.record().await else { return true };
        let exchange = Box::new(self.exchange(Arc::default(), None));
        self.let_in.send(LetIn::Judged { text, exchange, recording: Arc::new(recording) }).await.is_ok()
    }

    /// The recording of a request of the person, if there is room for its line.
    async fn record(&self) -> Option<Recording> {
        let recording = self.audit.begin(Uuid::new_v4().to_string(), AUDIT_PATIENCE).await?;
        recording.trail().authenticated(Arc::clone(&self.principal));
        Some(recording)
    }

    async fn judge(&self, message: &Message, trail: &Trail) -> Fate {
        let offered = match message.method.depends_on_offer() {
            true => match self.offer.snapshot(&self.principal).await {
                Ok(offered) => offered,
                Err(error) => return Fate::Refused(ErrorValue::new(code::INTERNAL_ERROR, error.to_string())),
            },
            false => Arc::<Offered>::default(),
        };
        match judge(&self.permissions, message, &offered) {
            Verdict::Allowed { tool, rule, graph } => {
                trail.decided(Outcome::Granted(rule));
                let granted = Granted { target: Target::Tool(tool), access: graph };
                Fate::LetIn(Box::new(self.exchange(offered, Some(granted))))
            }
            // Handshakes and lists are of no interest to an auditor of one person's machine.
            Verdict::Open => Fate::LetIn(Box::new(self.exchange(offered, None))),
            Verdict::UnknownTool | Verdict::Refused(_) | Verdict::NeedGroups(_) => {
                trail.decided(Outcome::Refused("unknown_tool"));
                let name = message.method.tool().unwrap_or_default();
                Fate::Refused(ErrorValue::new(code::INVALID_PARAMS, not_offered(name)))
            }
        }
    }

    fn exchange(&self, offered: Arc<Offered>, granted: Option<Granted>) -> Exchange {
        let (principal, permissions) = (Arc::clone(&self.principal), self.permissions.clone());
        Exchange { principal, permissions, offered, granted, needs: Needs::default() }
    }

    async fn answer(&self, id: &Value, error: &ErrorValue) -> bool {
        self.unanswered.end(id);
        self.say(id, error).await
    }

    async fn say(&self, id: &Value, error: &ErrorValue) -> bool {
        self.out.send(error.answer(id).to_string()).await.is_ok()
    }
}

/// True if this request begins a session: a handshake, or any request of a client that has none. A client may look with
/// `ping` and `server/discover` first, and take the handshake all the same.
fn begins(method: &Method, text: &str) -> bool {
    match method {
        Method::Initialize => true,
        Method::Ping | Method::Discover => false,
        _ => serde_json::from_str::<Value>(text).is_ok_and(|message| message.pointer(REVISION).is_some()),
    }
}

/// The text for a tool that is not offered, with what would offer it.
fn not_offered(name: &str) -> String {
    match built_in_tool(name) {
        Some(tool) if tool.writes => {
            format!("tool not found: {name} changes something; start this program with --allow {name}")
        }
        Some(tool) => format!("tool not found: {name} needs {} among --scopes", tool.permissions.delegated.join(", ")),
        None => "tool not found".to_owned(),
    }
}

/// The text of this line, if it is an answer to a request of ours.
fn answer_text(line: &[u8]) -> Option<String> {
    let value = strict_json::from_slice(line).ok()?;
    let has = |name| value.get(name).is_some();
    (!has("method") && has("id") && (has("result") || has("error"))).then(|| value.to_string())
}
