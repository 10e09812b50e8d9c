//! Calls of an offer: runs what a grant allows, and converts the reply to a message of the client's revision.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::envelope::{self, Kind};
use super::{Exchange, Protocol, Revision, Running};
use crate::authorize::Meta;
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::backend::Held;
use crate::entra::SignIn;
use crate::offer::{
    Call, Client, Completion, CompletionRequest, Failure, Input, InputRequired, JsonObject, Lack, LogLevel, Notices,
    Offer, Operation, Reply, Wanted, tool_error,
};
use crate::raw_json::RawObject;

/// Answer to a request that its transport has not decided about, which is a defect of this server.
const DEFECT: &str =
    "the request carries no verified caller and grant; report this defect to the developers of this server";

const PANIC: &str = "the call ended in a panic; report this defect to the developers of this server";

/// Maximum number of input rounds of one call.
const MAXIMUM_ROUNDS: usize = 8;

/// Maximum number of completion values, as in MCP.
const MAXIMUM_VALUES: usize = 100;

/// The end of a call.
#[derive(Debug)]
pub struct Finished {
    /// The message to the client, as JSON text.
    pub message: Bytes,
    /// The code of the error, if the message is one.
    pub error: Option<i32>,
    /// The requirement for an answer, if the call lacks one.
    pub need: Option<Need>,
}

/// The requirement for an answer to a call. The transport may have a better way to request it than the answer.
#[derive(Clone, Debug)]
pub enum Need {
    /// The user signs in again.
    SignIn(SignIn),
    /// The same call is repeated later, for the reason in the text.
    Patience(Lack, String),
}

/// A running call, with the parts that its answer depends on.
#[derive(Clone)]
struct Calling {
    id: Value,
    revision: Revision,
    kind: Kind,
    is_tool: bool,
    capabilities: Arc<JsonObject>,
    server_info: Arc<Value>,
}

/// A message with its share of memory, until it has been sent.
struct Holding {
    message: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Holding {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

impl Calling {
    fn new(id: &Value, revision: Revision, call: &Call, server_info: &Arc<Value>) -> Self {
        let kind = match call.operation {
            Operation::Resource { .. } => Kind::Cacheable,
            Operation::Tool { .. } | Operation::Prompt { .. } => Kind::Once,
        };
        Self {
            id: id.clone(),
            revision,
            kind,
            is_tool: matches!(call.operation, Operation::Tool { .. }),
            capabilities: Arc::clone(&call.client.capabilities),
            server_info: Arc::clone(server_info),
        }
    }

    /// Returns the message for a reply of the offer, and the requirement of the reply.
    fn finish(self, reply: Reply) -> Finished {
        match reply {
            Reply::Complete(result) => self.complete(result, None),
            Reply::Forwarded(result, held) => self.forwarded(result, held),
            Reply::InputRequired(required) => self.input_required(required),
            Reply::CapabilityMissing(missing) => self.capability_missing(missing),
            Reply::SignIn(sign_in, text) => self.in_words(&text, Some(Need::SignIn(sign_in))),
            Reply::Later(lack, text) => self.in_words(&text, Some(Need::Patience(lack, text.clone()))),
            Reply::Failed(Failure { code, message, data }) => {
                let code = self.code(code);
                self.failed(&ErrorValue { code, message, data })
            }
        }
    }

    /// Returns the code of an error in the client's revision: a missing resource had its own code in earlier ones.
    fn code(&self, code: i32) -> i32 {
        match code {
            code::INVALID_PARAMS if self.kind == Kind::Cacheable && !self.revision.is_modern() => {
                code::RESOURCE_NOT_FOUND
            }
            code => code,
        }
    }

    fn complete(self, result: JsonObject, need: Option<Need>) -> Finished {
        let result = envelope::complete(result, self.revision, self.kind, &self.server_info);
        let message = envelope::result(&self.id, &Value::Object(result).to_string());
        Finished { message, error: None, need }
    }

    fn forwarded(self, result: RawObject, held: Held) -> Finished {
        let result = envelope::complete_raw(result, self.revision, self.kind, &self.server_info);
        let message = Holding { message: envelope::result(&self.id, &result.to_text()), _held: held };
        Finished { message: Bytes::from_owner(message), error: None, need: None }
    }

    /// Returns the text as the result of a tool. Other calls get an error of JSON-RPC.
    fn in_words(self, text: &str, need: Option<Need>) -> Finished {
        match self.is_tool {
            true => self.complete(tool_error(text), need),
            false => Finished { need, ..self.failed(&ErrorValue::new(code::INTERNAL_ERROR, text)) },
        }
    }

    fn failed(self, error: &ErrorValue) -> Finished {
        let message = Bytes::from(error.answer(&self.id).to_string());
        Finished { message, error: Some(error.code), need: None }
    }

    /// Clients of earlier revisions do not support the answer that input is required.
    fn input_required(self, required: InputRequired) -> Finished {
        if !self.revision.is_modern() {
            let text =
                "this call needs input that only clients of MCP 2026-07-28 and later can give; use such a client";
            return self.in_words(text, None);
        }
        let missing = missing(&required, &self.capabilities);
        if !missing.is_empty() {
            return self.capability_missing(missing);
        }
        let InputRequired { requests, state } = required;
        let mut result = JsonObject::from_iter([("resultType".to_owned(), json!("input_required"))]);
        result.insert("inputRequests".to_owned(), json!(requests));
        if let Some(state) = state {
            result.insert("requestState".to_owned(), json!(state));
        }
        Self { kind: Kind::Once, ..self }.complete(result, None)
    }

    /// Clients of earlier revisions declare no capability for requests in an answer.
    fn capability_missing(self, missing: JsonObject) -> Finished {
        let names = Vec::from_iter(missing.keys().map(String::as_str)).join(", ");
        if !self.revision.is_modern() {
            let text = format!(
                "this call needs a client of MCP 2026-07-28 or later with the capabilities {names}; use such a client"
            );
            return self.in_words(&text, None);
        }
        let text = format!("this call needs a client with the capabilities {names}; use a client that declares them");
        let data = Some(json!({ "requiredCapabilities": missing }));
        self.failed(&ErrorValue { data, ..ErrorValue::new(code::CAPABILITY_MISSING, text) })
    }
}

impl Protocol {
    /// Starts a call that a grant allows.
    pub(super) fn call(
        &self,
        (id, operation, input): (Value, Operation, Input),
        meta: Meta,
        exchange: &Exchange,
    ) -> Running {
        let wanted = self.wanted(&meta, exchange.revision);
        let (notices, heard) = match wanted == Wanted::default() {
            true => (Notices::default(), None),
            false => {
                let (notices, heard) = Notices::heard(wanted);
                (notices, Some(heard))
            }
        };
        // A client of an earlier revision does not support a request as the answer. Its capabilities outside of the
        // handshake are empty.
        let is_answered = exchange.revision.is_modern() || exchange.asks.is_some();
        let capabilities = meta.capabilities.filter(|_| is_answered).unwrap_or_default();
        let log_level = wanted.log.filter(|_| exchange.revision.is_modern());
        let client = Client { capabilities, log_level, notices };
        let principal = Arc::clone(&exchange.principal);
        let (offered, access) = (Arc::clone(&exchange.offered), exchange.granted.unwrap_or_default());
        let call = Call { operation, principal, offered, access, input, client };
        let calling = Calling::new(&id, exchange.revision, &call, &self.server_info);
        if exchange.granted.is_none() {
            tracing::error!("{DEFECT}");
            return Running::new(id, async { calling.failed(&ErrorValue::new(code::INTERNAL_ERROR, DEFECT)) });
        }
        let offer = Arc::clone(&self.offer);
        let asks = exchange.asks.clone().filter(|_| !exchange.revision.is_modern());
        let running = Running::new(id, async move {
            let reply = match asks {
                Some(asks) => reply_with_input(&*offer, call, &*asks).await,
                None => reply(&*offer, call).await,
            };
            calling.finish(reply)
        });
        running.telling(heard, meta.progress_token)
    }

    /// Clients of earlier revisions set their log level in a session, and have no session here.
    fn wanted(&self, meta: &Meta, revision: Revision) -> Wanted {
        let log = match self.offer.about().logs {
            true if !revision.is_modern() => Some(LogLevel::Info),
            true => meta.log_level,
            false => None,
        };
        Wanted { log, ..meta.wanted() }
    }

    /// Starts a completion of an argument.
    pub(super) fn complete(&self, id: Value, completing: CompletionRequest, exchange: &Exchange) -> Running {
        let (offer, principal) = (Arc::clone(&self.offer), Arc::clone(&exchange.principal));
        let (server_info, revision, granted) = (Arc::clone(&self.server_info), exchange.revision, exchange.granted);
        Running::new(id.clone(), async move {
            let capabilities = Arc::default();
            let calling = Calling { id, revision, kind: Kind::Once, is_tool: false, capabilities, server_info };
            if granted.is_none() {
                tracing::error!("{DEFECT}");
                return calling.failed(&ErrorValue::new(code::INTERNAL_ERROR, DEFECT));
            }
            match offer.complete(completing, &principal).await {
                Ok(Completion { values }) => {
                    let (total, told) = (values.len(), values.iter().take(MAXIMUM_VALUES).collect::<Vec<_>>());
                    let completion = json!({ "values": told, "total": total, "hasMore": total > MAXIMUM_VALUES });
                    calling.complete(JsonObject::from_iter([("completion".to_owned(), completion)]), None)
                }
                Err(failure) => calling.failed(&failure.into()),
            }
        })
    }
}

/// Returns the capabilities that requests to a client need, and that it does not declare.
fn missing(required: &InputRequired, declared: &JsonObject) -> JsonObject {
    let capabilities = required.requests.values().filter_map(|request| capability(request.get("method")?.as_str()?));
    let missing = capabilities.filter(|capability| !declared.contains_key(*capability));
    missing.map(|capability| (capability.to_owned(), json!({}))).collect()
}

/// Returns the capability of a client that a request to it needs.
fn capability(method: &str) -> Option<&'static str> {
    match method {
        "elicitation/create" => Some("elicitation"),
        "sampling/createMessage" => Some("sampling"),
        "roots/list" => Some("roots"),
        _ => None,
    }
}

/// Returns the reply of an offer to a call. The payload of a panic can quote anything, so it is in no log line and in
/// no answer.
async fn reply(offer: &dyn Offer, call: Call) -> Reply {
    AssertUnwindSafe(offer.call(call)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("{PANIC}");
        Reply::Failed(Failure { code: code::INTERNAL_ERROR, message: PANIC.to_owned(), data: None })
    })
}

/// Returns the reply of an offer to a call whose client is asked for input while the call runs. The offer is called
/// again with the client's input.
async fn reply_with_input(
    offer: &dyn Offer,
    mut call: Call,
    asks: &(dyn Fn(BTreeMap<String, Value>) -> BoxFuture<'static, BTreeMap<String, Value>> + Send + Sync),
) -> Reply {
    for _ in 0..MAXIMUM_ROUNDS {
        match reply(offer, call.clone()).await {
            Reply::InputRequired(required) if missing(&required, &call.client.capabilities).is_empty() => {
                call.input = Input { responses: asks(required.requests).await, state: required.state };
            }
            reply => return reply,
        }
    }
    let text = "the call requests input repeatedly; report this defect to the developers of this server";
    Reply::Failed(Failure { code: code::INTERNAL_ERROR, message: text.to_owned(), data: None })
}
