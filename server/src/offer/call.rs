//! One use of what is offered, and its answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use mcp_entra_policy::GraphAccess;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::entra::SignIn;
use crate::token::Principal;

/// Members of a JSON object, by name.
pub type JsonObject = Map<String, Value>;

/// A use of what is offered. The caller is authenticated, and the policy grants the use.
#[derive(Clone, Debug)]
pub struct Call {
    /// The use.
    pub operation: Operation,
    /// The caller.
    pub principal: Arc<Principal>,
    /// The access to Microsoft Graph that the grant gives this call.
    pub access: GraphAccess,
    /// Input of the client, where an earlier answer was [`Reply::InputRequired`].
    pub input: Input,
    /// The ways to reach the client while the call runs.
    pub client: Client,
}

/// The ways to reach a client while its call runs. Without any, the answer is all that it gets.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// True if the client can ask its person to open an address (`elicitation/create` of the mode `url`).
    pub opens_addresses: bool,
    /// Progress of the call.
    pub progress: Progress,
}

/// Progress of a call. It is told to clients that asked for it; to others it is nothing.
#[derive(Clone, Debug, Default)]
pub struct Progress(Option<mpsc::Sender<&'static str>>);

impl Progress {
    /// Progress that somebody hears of.
    pub fn heard() -> (Self, mpsc::Receiver<&'static str>) {
        let (messages, heard) = mpsc::channel(4);
        (Self(Some(messages)), heard)
    }

    /// Says what the call is at. Nobody waits for that.
    pub fn tell(&self, message: &'static str) {
        if let Some(messages) = &self.0 {
            _ = messages.try_send(message);
        }
    }
}

/// The use that is made of what is offered.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Calls a tool.
    Tool {
        /// Name of the tool.
        name: String,
        /// Arguments as the client sent them.
        arguments: JsonObject,
    },
    /// Gets a prompt.
    Prompt {
        /// Name of the prompt.
        name: String,
        /// Arguments as the client sent them.
        arguments: JsonObject,
    },
    /// Reads a resource.
    Resource {
        /// URI of the resource.
        uri: String,
    },
}

/// Input of the client, besides arguments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// Answers to [`InputRequired::requests`], by the names that stand there.
    pub responses: BTreeMap<String, Value>,
    /// [`InputRequired::state`], as the client says. Anybody may have written it.
    pub state: Option<String>,
}

/// The answer to a call.
#[derive(Debug)]
pub enum Reply {
    /// The result: the members that MCP defines for it (`content`, `messages`, `contents` …), none of the envelope.
    Complete(JsonObject),
    /// The client must give input and call again.
    InputRequired(InputRequired),
    /// Only the user's next sign-in helps. The text says so to clients that cannot be asked for one.
    SignIn(SignIn, String),
    /// The same call may be answered soon. The text says so to clients that get it as a result.
    Later(String),
    /// There is no result.
    Failed(Failure),
}

/// Input that a call takes before it can be answered.
#[derive(Clone, Debug, Default)]
pub struct InputRequired {
    /// Requests to the client, by name, as MCP defines them (`elicitation/create` …).
    pub requests: BTreeMap<String, Value>,
    /// State of the call, which the client sends back as it is.
    pub state: Option<String>,
}

/// An error of JSON-RPC.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The code.
    pub code: i32,
    /// The text, for a person.
    pub message: String,
}

impl Reply {
    /// The answer of a tool that has an output schema, with its text form for clients that read no other.
    pub fn structured(output: Value) -> Self {
        let content = json!([{ "type": "text", "text": output.to_string() }]);
        Self::Complete(JsonObject::from_iter([
            ("content".to_owned(), content),
            ("structuredContent".to_owned(), output),
            ("isError".to_owned(), Value::Bool(false)),
        ]))
    }
}

/// The result of a tool that went wrong, in words that a model or a person can act on.
pub fn tool_error(text: &str) -> JsonObject {
    let content = json!([{ "type": "text", "text": text }]);
    JsonObject::from_iter([("content".to_owned(), content), ("isError".to_owned(), Value::Bool(true))])
}

impl Failure {
    /// The failure of a call that names nothing that is offered.
    pub fn not_found(operation: &Operation) -> Self {
        const INVALID_PARAMS: i32 = -32602;
        let message = match operation {
            Operation::Tool { .. } => "tool not found",
            Operation::Prompt { .. } => "prompt not found",
            Operation::Resource { .. } => "resource not found",
        };
        Self { code: INVALID_PARAMS, message: message.to_owned() }
    }
}
