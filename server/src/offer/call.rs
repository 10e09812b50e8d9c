//! One use of the offer, and its answers.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use mcp_entra_policy::GraphAccess;
use serde_json::{Map, Value, json};

use super::notices::{LogLevel, Notices};
use super::offered::{Offered, OfferedPrompt, OfferedTool};
use crate::backend::Held;
use crate::entra::SignIn;
use crate::raw_json::RawObject;
use crate::token::Principal;

/// Members of a JSON object, by name.
pub type JsonObject = Map<String, Value>;

/// A use of the offer. The caller is authenticated, and the policy grants the use.
#[derive(Clone, Debug)]
pub struct Call {
    /// The use.
    pub operation: Operation,
    /// The caller.
    pub principal: Arc<Principal>,
    /// The snapshot of the offer for the decision.
    pub offered: Arc<Offered>,
    /// The grant's access to Microsoft Graph for this call.
    pub access: GraphAccess,
    /// Input of the client, if an earlier answer was [`Reply::InputRequired`].
    pub input: Input,
    /// Connection to the client while the call runs.
    pub client: Client,
}

/// Connection to a client while its call runs. Without any part, the client only gets the answer.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// Capabilities that the client declares, as MCP defines them (`elicitation`, `sampling`, `roots` …).
    pub capabilities: Arc<JsonObject>,
    /// The least severe log messages that the request wants; absent for none.
    pub log_level: Option<LogLevel>,
    /// Progress and log messages of the call.
    pub notices: Notices,
}

impl Client {
    /// True if the client can ask its user to open an address (`elicitation/create` of the mode `url`).
    pub fn opens_addresses(&self) -> bool {
        self.capabilities.get("elicitation").is_some_and(|elicitation| elicitation.get("url").is_some())
    }
}

/// The kind of use.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Calls a tool.
    Tool {
        /// Name of the tool.
        name: String,
        /// Arguments as the client sent them.
        arguments: Arguments,
    },
    /// Gets a prompt.
    Prompt {
        /// Name of the prompt.
        name: String,
        /// Arguments as the client sent them.
        arguments: Arguments,
    },
    /// Reads a resource.
    Resource {
        /// URI of the resource.
        uri: String,
    },
}

impl Operation {
    /// Returns the operation with the exact text of its arguments.
    pub(crate) fn written(self, text: &str) -> Self {
        match self {
            Self::Tool { name, arguments } => Self::Tool { name, arguments: arguments.written(text) },
            Self::Prompt { name, arguments } => Self::Prompt { name, arguments: arguments.written(text) },
            Self::Resource { uri } => Self::Resource { uri },
        }
    }

    /// Returns the operation for policies; `None` if it names nothing in the offer.
    pub fn offered<'a>(&'a self, offered: &'a Offered) -> Option<mcp_entra_policy::Operation<'a>> {
        match self {
            Self::Tool { name, .. } => offered.tool(name).map(OfferedTool::operation),
            Self::Prompt { name, .. } => offered.prompt(name).map(OfferedPrompt::operation),
            Self::Resource { uri } => offered.has_resource(uri).then_some(mcp_entra_policy::Operation::Resource(uri)),
        }
    }

    /// Returns the name of the tool or prompt, or the URI of the resource.
    pub fn name(&self) -> &str {
        match self {
            Self::Tool { name, .. } | Self::Prompt { name, .. } => name,
            Self::Resource { uri } => uri,
        }
    }
}

/// Arguments of a call.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    members: Arc<JsonObject>,
    text: Option<Arc<str>>,
}

impl Arguments {
    /// Arguments with their exact text.
    pub(crate) fn written(self, text: &str) -> Self {
        Self { text: Some(text.into()), ..self }
    }

    /// The JSON text of the client, with its order of members and all digits of its numbers.
    pub fn text(&self) -> String {
        match &self.text {
            Some(text) => text.to_string(),
            None => json!(*self.members).to_string(),
        }
    }
}

impl Deref for Arguments {
    type Target = JsonObject;

    fn deref(&self) -> &JsonObject {
        &self.members
    }
}

impl From<JsonObject> for Arguments {
    fn from(members: JsonObject) -> Self {
        Self { members: Arc::new(members), text: None }
    }
}

impl PartialEq for Arguments {
    fn eq(&self, other: &Self) -> bool {
        self.members == other.members
    }
}

/// A request for values of an argument (`completion/complete`).
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    /// The prompt or the template of the argument.
    pub reference: CompletionReference,
    /// Name of the argument.
    pub argument: String,
    /// The value, as typed so far.
    pub value: String,
    /// Values of other arguments that the client knows.
    pub context: BTreeMap<String, String>,
}

/// The prompt or template with the argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompletionReference {
    /// The prompt of this name.
    Prompt(String),
    /// The template with this URI template.
    Template(String),
}

/// Values of an argument, the likeliest first. Clients get the first hundred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The values.
    pub values: Vec<String>,
}

/// Input of the client, besides arguments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// Answers to [`InputRequired::requests`], by their names.
    pub responses: BTreeMap<String, Value>,
    /// [`InputRequired::state`] from the client. It is untrusted.
    pub state: Option<String>,
}

/// The answer to a call.
#[derive(Debug)]
pub enum Reply {
    /// The result: the members that MCP defines for it (`content`, `messages`, `contents` …), without the envelope.
    Complete(JsonObject),
    /// The result as another server wrote it, without the envelope of its revision, and its share of memory.
    Forwarded(RawObject, Held),
    /// The client must give input and call again.
    InputRequired(InputRequired),
    /// The call needs a client with these capabilities, which this one does not declare.
    CapabilityMissing(JsonObject),
    /// Only the user's next sign-in helps. The text is for clients that cannot be asked for one.
    SignIn(SignIn, String),
    /// The same call may be answered soon, when this is back. The text is for clients that get it as a result.
    Later(Lack, String),
    /// There is no result.
    Failed(Failure),
}

/// The missing part that prevents an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The store with the sessions of users.
    SessionStore,
    /// The backend.
    Backend,
}

/// Input that a call needs before it can be answered.
#[derive(Clone, Debug, Default)]
pub struct InputRequired {
    /// Requests to the client, by name, as MCP defines them (`elicitation/create` …).
    pub requests: BTreeMap<String, Value>,
    /// State of the call, which the client returns unchanged.
    pub state: Option<String>,
}

/// An error of JSON-RPC.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The code.
    pub code: i32,
    /// The text, for a person.
    pub message: String,
    /// Details for programs.
    pub data: Option<Value>,
}

impl Reply {
    /// Returns the answer of a tool with an output schema, with its text form for clients that only read text.
    pub fn structured(output: Value) -> Self {
        let content = json!([{ "type": "text", "text": output.to_string() }]);
        Self::Complete(JsonObject::from_iter([
            ("content".to_owned(), content),
            ("structuredContent".to_owned(), output),
            ("isError".to_owned(), Value::Bool(false)),
        ]))
    }
}

/// Returns the result of a failed tool, with a message that a model or a person can act on.
pub fn tool_error(text: &str) -> JsonObject {
    let content = json!([{ "type": "text", "text": text }]);
    JsonObject::from_iter([("content".to_owned(), content), ("isError".to_owned(), Value::Bool(true))])
}

impl Failure {
    /// Returns a failure because of invalid parameters.
    pub fn invalid(message: impl Into<String>) -> Self {
        const INVALID_PARAMS: i32 = -32602;
        Self { code: INVALID_PARAMS, message: message.into(), data: None }
    }

    /// Returns a failure that the client did not cause.
    pub fn internal(message: impl Into<String>) -> Self {
        const INTERNAL_ERROR: i32 = -32603;
        Self { code: INTERNAL_ERROR, message: message.into(), data: None }
    }

    /// Returns the failure of a call that names nothing in the offer.
    pub fn not_found(operation: &Operation) -> Self {
        match operation {
            Operation::Tool { .. } => Self::invalid("tool not found"),
            Operation::Prompt { .. } => Self::invalid("prompt not found"),
            Operation::Resource { uri } => {
                Self { data: Some(json!({ "uri": uri })), ..Self::invalid("resource not found") }
            }
        }
    }
}
