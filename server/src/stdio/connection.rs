//! The connection to the MCP client: lines from standard input, each parsed, judged and recorded, and lines to standard
//! output, which carries nothing else.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use mcp_entra_policy::CompiledPolicy;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::{AuditLog, Outcome, Trail};
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::authorize::{Message, Method, Permissions, PolicyInForce, Verdict, judge};
use crate::offer::{Offer, Offered};
use crate::protocol::{Exchange, Granted, LetIn, SignInNeeded, Target, serve_lines};
use crate::strict_json;
use crate::token::Principal;

/// The longest line that is read, in bytes: as long as a message over HTTP may be.
const MAXIMUM_LINE: usize = 128 * 1024;
/// Lines that wait on each side while the other is slow.
const WAITING: usize = 64;
/// Time that a message waits for room in the audit log.
const AUDIT_PATIENCE: Duration = Duration::from_secs(10);
/// Time in which what is answered without the network is answered still, once standard input has ended.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// The client, and what it is served.
pub(super) struct Connection {
    pub(super) principal: Arc<Principal>,
    pub(super) policy: CompiledPolicy,
    pub(super) offer: Arc<dyn Offer>,
    pub(super) audit: Arc<AuditLog>,
}

/// The fate of a message.
enum Judged {
    LetIn(Box<Exchange>),
    Refused(ErrorValue),
    /// Nobody waits for an answer.
    Dropped,
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
        let writing = tokio::spawn(write(output, lines));
        let reading = tokio::spawn(Reader::new(&self, let_in, out.clone()).read(input));
        let stop = CancellationToken::new();
        let session = serve_lines(Arc::clone(&self.offer), messages, out, stop.clone());
        let mut session = std::pin::pin!(session);
        tokio::select! {
            ended = &mut session => ended?,
            _ = reading => {
                if tokio::time::timeout(LAST_ANSWERS, &mut session).await.is_err() {
                    stop.cancel();
                }
            }
            _ = writing => stop.cancel(),
        }
        Ok(())
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
    /// True once a request was let in: what comes before it belongs to no session.
    has_begun: bool,
}

impl Reader {
    fn new(connection: &Connection, let_in: mpsc::Sender<LetIn>, out: mpsc::Sender<String>) -> Self {
        let Connection { principal, policy, offer, audit } = connection;
        let policy = Arc::new(PolicyInForce::new(policy.clone(), String::new()));
        Self {
            permissions: Permissions::new(Arc::clone(principal.caller()), policy),
            principal: Arc::clone(principal),
            offer: Arc::clone(offer),
            audit: Arc::clone(audit),
            let_in,
            out,
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
        let Some(recording) = self.audit.begin(Uuid::new_v4().to_string(), AUDIT_PATIENCE).await else {
            let text = "the audit log takes no more lines; free space for it, and start the client again";
            return self.answer(&Value::Null, &ErrorValue::new(code::INTERNAL_ERROR, text)).await;
        };
        let trail = recording.trail();
        trail.authenticated(Arc::clone(&self.principal));
        let (message, text) = match Message::parse(line) {
            Ok(parsed) => parsed,
            Err(malformed) => {
                trail.decided(Outcome::Refused(malformed.reason()));
                return self.answer(&malformed.id, &malformed.error()).await;
            }
        };
        trail.understood(message.method.name(), message.method.tool());
        match self.judge(&message, &trail).await {
            Judged::Dropped => true,
            Judged::Refused(error) => self.answer(message.answer_id(), &error).await,
            Judged::LetIn(exchange) => {
                self.has_begun |= message.id.is_some();
                let recording = Arc::new(recording);
                self.let_in.send(LetIn::Judged { text, exchange, recording }).await.is_ok()
            }
        }
    }

    async fn judge(&self, message: &Message, trail: &Trail) -> Judged {
        let is_stray = message.id.is_none() && !self.has_begun;
        if message.method == Method::UnknownNotification || is_stray {
            return Judged::Dropped;
        }
        let offered = match message.method.depends_on_offer() {
            true => match self.offer.snapshot(&self.principal).await {
                Ok(offered) => offered,
                Err(error) => {
                    return Judged::Refused(ErrorValue::new(code::INTERNAL_ERROR, error.to_string().as_str()));
                }
            },
            false => Arc::<Offered>::default(),
        };
        let (outcome, granted) = match judge(&self.permissions, message, &offered) {
            Verdict::Allowed { tool, rule, graph } => {
                (Outcome::Granted(rule), Some(Granted { target: Target::Tool(tool), access: graph }))
            }
            Verdict::Open => (Outcome::Open, None),
            // rmcp answers -32602, as the specification has it.
            Verdict::UnknownTool => (Outcome::Refused("unknown_tool"), None),
            Verdict::Refused(_) | Verdict::NeedGroups(_) => {
                trail.decided(Outcome::Refused("not_granted"));
                let text = "the tool is not allowed here; allow it with --allow";
                return Judged::Refused(ErrorValue::new(code::FORBIDDEN, text));
            }
        };
        trail.decided(outcome);
        Judged::LetIn(Box::new(Exchange {
            principal: Arc::clone(&self.principal),
            permissions: self.permissions.clone(),
            offered,
            granted,
            sign_in: SignInNeeded::default(),
        }))
    }

    async fn answer(&self, id: &Value, error: &ErrorValue) -> bool {
        self.out.send(error.answer(id).to_string()).await.is_ok()
    }
}

/// The text of this line, if it is an answer to a request of ours.
fn answer_text(line: &[u8]) -> Option<String> {
    let value = strict_json::from_slice(line).ok()?;
    let has = |name| value.get(name).is_some();
    (!has("method") && has("id") && (has("result") || has("error"))).then(|| value.to_string())
}
