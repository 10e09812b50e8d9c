//! One use of what is offered, and its answers.

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

/// A use of what is offered. The caller is authenticated, and the policy grants the use.
#[derive(Clone, Debug)]
pub struct Call {
    /// The use.
    pub operation: Operation,
    /// The caller.
    pub principal: Arc<Principal>,
    /// The snapshot that the call was decided by.
    pub offered: Arc<Offered>,
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
    /// Capabilities that the client declares, as MCP defines them (`elicitation`, `sampling`, `roots` …).
    pub capabilities: JsonObject,
    /// The least severe log messages that the request asks for; absent for none.
    pub log_level: Option<LogLevel>,
    /// Progress and log messages of the call.
    pub notices: Notices,
}

impl Client {
    /// True if the client can ask its person to open an address (`elicitation/create` of the mode `url`).
    pub fn opens_addresses(&self) -> bool {
        self.capabilities.get("elicitation").is_some_and(|elicitation| elicitation.get("url").is_some())
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
    /// The same, with arguments as the client wrote them.
    pub(crate) fn written(self, text: &str) -> Self {
        match self {
            Self::Tool { name, arguments } => Self::Tool { name, arguments: arguments.written(text) },
            Self::Prompt { name, arguments } => Self::Prompt { name, arguments: arguments.written(text) },
            Self::Resource { uri } => Self::Resource { uri },
        }
    }

    /// Returns the operation as policies decide about it. None if it names nothing that is offered.
    pub fn offered<'a>(&'a self, offered: &'a Offered) -> Option<mcp_entra_policy::Operation<'a>> {
        match self {
            Self::Tool { name, .. } => offered.tool(name).map(OfferedTool::operation),
            Self::Prompt { name, .. } => offered.prompt(name).map(OfferedPrompt::operation),
            Self::Resource { uri } => offered.has_resource(uri).then_some(mcp_entra_policy::Operation::Resource(uri)),
        }
    }

    /// The name of the tool or prompt, or the URI of the resource.
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
    members: JsonObject,
    text: Option<Arc<str>>,
}

impl Arguments {
    /// The same, as the client wrote them.
    pub(crate) fn written(self, text: &str) -> Self {
        Self { text: Some(text.into()), ..self }
    }

    /// The JSON text that the client wrote, with its order of members and all digits of its numbers.
    pub fn text(&self) -> String {
        match &self.text {
            Some(text) => text.to_string(),
            None => Value::Object(self.members.clone()).to_string(),
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
        Self { members, text: None }
    }
}

impl PartialEq for Arguments {
    fn eq(&self, other: &Self) -> bool {
        self.members == other.members
    }
}

/// A question for values that an argument may have (`completion/complete`).
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    /// The prompt or the template whose argument it is.
    pub reference: CompletionReference,
    /// Name of the argument.
    pub argument: String,
    /// The value as far as it is typed.
    pub value: String,
    /// Values of other arguments, as far as the client knows them.
    pub context: BTreeMap<String, String>,
}

/// The prompt or template whose arguments are completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompletionReference {
    /// The prompt of this name.
    Prompt(String),
    /// The template of resources with this URI template.
    Template(String),
}

/// Values that an argument may have, the likeliest first. Clients are told of the first hundred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The values.
    pub values: Vec<String>,
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
    /// The result as another server wrote it, without the envelope of its revision, and the memory that it takes.
    Forwarded(RawObject, Held),
    /// The client must give input and call again.
    InputRequired(InputRequired),
    /// The call takes a client with these capabilities, which this one does not declare.
    CapabilityMissing(JsonObject),
    /// Only the user's next sign-in helps. The text says so to clients that cannot be asked for one.
    SignIn(SignIn, String),
    /// The same call may be answered soon, when this is back. The text says so to clients that get it as a result.
    Later(Lack, String),
    /// There is no result.
    Failed(Failure),
}

/// The thing whose absence keeps a call from its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The store with the sessions of users.
    SessionStore,
    /// The backend.
    Backend,
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
    /// Facts for programs.
    pub data: Option<Value>,
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
    /// A failure by parameters that do not fit.
    pub fn invalid(message: impl Into<String>) -> Self {
        const INVALID_PARAMS: i32 = -32602;
        Self { code: INVALID_PARAMS, message: message.into(), data: None }
    }

    /// A failure that is not the client's.
    pub fn internal(message: impl Into<String>) -> Self {
        const INTERNAL_ERROR: i32 = -32603;
        Self { code: INTERNAL_ERROR, message: message.into(), data: None }
    }

    /// The failure of a call that names nothing that is offered.
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
