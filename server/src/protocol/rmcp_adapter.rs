//! The bridge between rmcp and an offer: lists by the caller's permissions, calls as they were granted.

use std::any::Any;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use mcp_entra_policy::Operation as Use;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorCode, GetPromptRequestParams, GetPromptResponse,
    GetPromptResult, Implementation, InputRequiredResult, InputResponses, ListPromptsResult, ListResourcesResult,
    ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProgressToken, Prompt, PromptArgument,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource, ServerCapabilities,
    ServerConfig, ServerRequest, Tool, ToolAnnotations,
};
use rmcp::service::{RequestContext, ServerInitializeError};
use rmcp::transport::Transport;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::exchange::{Exchange, Need};
use crate::offer::{
    Call, Client, Failure, Input, InputRequired, JsonObject, Offer, OfferedPrompt, OfferedResource, OfferedTool,
    Operation, Progress, Reply, tool_error,
};

const DEFECT: &str =
    "the request carries no verified caller and grant; report this defect to the developers of this server";

const PANIC: &str = "the call ended in a panic; report this defect to the developers of this server";

/// Rounds of input that one call may take.
const MAXIMUM_ROUNDS: usize = 8;

/// Time that a client has to answer a request of ours: its person may have to look at it.
const INPUT_PATIENCE: Duration = Duration::from_secs(20);

/// MCP over HTTP, behind everything that lets requests in.
pub type HttpService = BoxCloneSyncService<Request, Response, Infallible>;

/// One sessionless endpoint for both eras of the protocol, so that replicas share nothing. Requests carry an
/// [`Exchange`].
pub fn service(offer: Arc<dyn Offer>) -> HttpService {
    // rmcp's own check of Host knows loopback only; it has been made before. So has the check of the body's size: numbers
    // like `1e15` grow when a message is serialised anew, so that a second limit could refuse what the first one accepted.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(usize::MAX)
        .disable_allowed_hosts();
    let handler = Handler { offer, is_session: false };
    let service =
        StreamableHttpService::new(move || Ok(handler.clone()), Arc::new(NeverSessionManager::default()), config);
    BoxCloneSyncService::new(ServiceExt::<Request>::map_response(service, IntoResponse::into_response))
}

/// The handler of one request. rmcp takes a new one for each.
#[derive(Clone)]
struct Handler {
    offer: Arc<dyn Offer>,
    /// True if all requests are those of one client, which can be reached while they run.
    is_session: bool,
}

/// Speaks MCP with one client over a transport whose messages carry an [`Exchange`] each, until the transport ends or
/// `stop` is cancelled.
///
/// # Errors
/// If the client's first messages are not those of MCP.
pub(super) async fn serve_session<T>(
    offer: Arc<dyn Offer>,
    transport: T,
    stop: CancellationToken,
) -> Result<(), ServerInitializeError>
where
    T: Transport<RoleServer> + 'static,
{
    let session = Handler { offer, is_session: true }.serve_with_ct(transport, stop).await?;
    _ = session.waiting().await;
    Ok(())
}

type Context = RequestContext<RoleServer>;

fn exchange(context: &Context) -> Result<&Exchange, ErrorData> {
    let parts = context.extensions.get::<Parts>();
    let over_http = || parts.and_then(|parts| parts.extensions.get());
    context.extensions.get().or_else(over_http).ok_or_else(defect)
}

fn defect() -> ErrorData {
    tracing::error!("{DEFECT}");
    ErrorData::internal_error(DEFECT, None)
}

/// The payload of a panic can quote anything: it stands in no log line and in no answer.
fn panicked(_: Box<dyn Any + Send>) -> ErrorData {
    tracing::error!("{PANIC}");
    ErrorData::internal_error(PANIC, None)
}

/// The entries that the caller may use. They differ between callers, so that nobody may share a list in a cache: rmcp
/// says so (`cacheScope: private`) of its own accord.
fn allowed<'a, T, U>(
    exchange: &Exchange,
    entries: &'a [T],
    operation: fn(&'a T) -> Use<'a>,
    shown: fn(&'a T) -> U,
) -> Vec<U> {
    entries.iter().filter(|entry| exchange.permissions.decide(operation(entry)).is_allowed()).map(shown).collect()
}

impl Handler {
    /// The ways to reach the client while this request runs, and what it is then told.
    fn client(&self, context: &Context) -> (Client, Option<(ProgressToken, mpsc::Receiver<&'static str>)>) {
        if !self.is_session {
            return (Client::default(), None);
        }
        let elicitation = context.client_capabilities().and_then(|capabilities| capabilities.elicitation);
        let opens_addresses = elicitation.is_some_and(|elicitation| elicitation.url.is_some());
        match context.meta.get_progress_token() {
            None => (Client { opens_addresses, progress: Progress::default() }, None),
            Some(token) => {
                let (progress, messages) = Progress::heard();
                (Client { opens_addresses, progress }, Some((token, messages)))
            }
        }
    }

    /// Calls the offer. Clients of revisions before 2026-07-28 cannot be answered that input is required: they are asked
    /// while the call runs, and the offer is called again.
    async fn with_input(&self, mut call: Call, context: &Context) -> Reply {
        for _ in 0..MAXIMUM_ROUNDS {
            let required = match self.offer.call(call.clone()).await {
                Reply::InputRequired(required) if self.is_session && !takes_input_required(context) => required,
                reply => return reply,
            };
            call.input = Input { responses: asked(required.requests, context).await, state: required.state };
        }
        Reply::Complete(tool_error(
            "the call takes input again and again; report this defect to the developers of this server",
        ))
    }

    /// Calls the offer as the grant says. rmcp cancels its token when the client hangs up or the time limit strikes: the call
    /// ends with it, and nobody reads the error. A cancellation that is POSTed reaches no other request: there are no sessions.
    ///
    /// rmcp runs this in a task of its own, where a panic would leave the request without an answer.
    async fn call(&self, operation: Operation, input: Input, context: &Context) -> Result<Answered, ErrorData> {
        let exchange = exchange(context)?;
        if !exchange.offered.has(&operation) {
            return Err(failed(Failure::not_found(&operation)));
        }
        let is_tool = matches!(operation, Operation::Tool { .. });
        let granted =
            exchange.granted.as_ref().filter(|granted| granted.target.is_of(&operation)).ok_or_else(defect)?;
        let (client, progress) = self.client(context);
        let call =
            Call { operation, principal: Arc::clone(&exchange.principal), access: granted.access, input, client };
        let calling = AssertUnwindSafe(self.with_input(call, context)).catch_unwind();
        let calling = telling(progress, context, calling);
        let reply = context.ct.run_until_cancelled(calling).await;
        match reply.ok_or_else(|| ErrorData::internal_error("the request was cancelled", None))?.map_err(panicked)? {
            Reply::Complete(result) => Ok(Answered::Complete(result)),
            Reply::InputRequired(required) => input_required(required).map(Answered::InputRequired),
            Reply::SignIn(sign_in, text) => {
                exchange.needs.tell(Need::SignIn(sign_in));
                in_words(is_tool, text)
            }
            Reply::Later(text) => {
                exchange.needs.tell(Need::Patience(text.clone()));
                in_words(is_tool, text)
            }
            Reply::Failed(failure) => Err(failed(failure)),
        }
    }
}

/// Says in words what went wrong: only a tool has a result for that.
fn in_words(is_tool: bool, text: String) -> Result<Answered, ErrorData> {
    match is_tool {
        true => Ok(Answered::Complete(tool_error(&text))),
        false => Err(ErrorData::internal_error(text, None)),
    }
}

fn takes_input_required(context: &Context) -> bool {
    context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

/// The answers of the client to these requests, in their order. Whoever does not answer in time has not.
async fn asked(requests: BTreeMap<String, Value>, context: &Context) -> BTreeMap<String, Value> {
    let mut answers = BTreeMap::new();
    for (name, request) in requests {
        let Ok(request) = serde_json::from_value::<ServerRequest>(request) else { continue };
        let answer = timeout(INPUT_PATIENCE, context.peer.send_request(request)).await;
        let answer = match answer {
            Ok(Ok(answer)) => serde_json::to_value(answer).unwrap_or_default(),
            Ok(Err(_)) | Err(_) => Value::Null,
        };
        answers.insert(name, answer);
    }
    answers
}

/// The outcome of a call. Meanwhile its progress is told to the client.
async fn telling<T>(
    progress: Option<(ProgressToken, mpsc::Receiver<&'static str>)>,
    context: &Context,
    calling: impl Future<Output = T>,
) -> T {
    let Some((token, mut messages)) = progress else { return calling.await };
    let telling = async {
        let mut steps = 0.0;
        while let Some(message) = messages.recv().await {
            steps += 1.0;
            let progress = ProgressNotificationParam::new(token.clone(), steps).with_message(message);
            _ = context.peer.notify_progress(progress).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        outcome = calling => outcome,
        () = telling => std::future::pending().await,
    }
}

/// A reply that is a result.
enum Answered {
    Complete(JsonObject),
    InputRequired(InputRequiredResult),
}

impl Answered {
    fn into<R, T>(self) -> Result<R, ErrorData>
    where
        T: DeserializeOwned,
        R: From<T> + From<InputRequiredResult>,
    {
        match self {
            Self::Complete(result) => complete::<T>(result).map(R::from),
            Self::InputRequired(required) => Ok(required.into()),
        }
    }
}

/// The result of these members. rmcp takes the type of the result away again where the client's revision has none.
fn complete<T: DeserializeOwned>(mut result: JsonObject) -> Result<T, ErrorData> {
    result.insert("resultType".to_owned(), json!("complete"));
    serde_json::from_value(Value::Object(result)).map_err(unreadable)
}

fn input_required(InputRequired { requests, state }: InputRequired) -> Result<InputRequiredResult, ErrorData> {
    let requests = serde_json::to_value(requests).and_then(serde_json::from_value).map_err(unreadable)?;
    Ok(InputRequiredResult::new(Some(requests), state))
}

/// The error quotes the answer, which is for the caller alone.
fn unreadable(error: serde_json::Error) -> ErrorData {
    tracing::error!("an answer is not as MCP defines it");
    ErrorData::internal_error(format!("the answer is not as MCP defines it: {error}"), None)
}

fn failed(Failure { code, message }: Failure) -> ErrorData {
    ErrorData::new(ErrorCode(code), message, None)
}

fn input(responses: Option<InputResponses>, state: Option<String>) -> Input {
    Input { responses: responses.unwrap_or_default(), state }
}

fn tool(tool: &OfferedTool) -> Tool {
    let description = Some(tool.description.clone().into());
    let mut shown = Tool::new_with_raw(tool.name.clone(), description, Arc::clone(&tool.input_schema));
    shown.output_schema = tool.output_schema.clone();
    shown.annotations = Some(ToolAnnotations::with_title(&tool.title).read_only(!tool.writes));
    shown
}

fn prompt(prompt: &OfferedPrompt) -> Prompt {
    let arguments = prompt.arguments.iter();
    let arguments = arguments.map(|argument| PromptArgument::new(&argument.name).with_required(argument.required));
    Prompt::new(&prompt.name, Some(&prompt.description), Some(arguments.collect()))
}

fn resource(resource: &OfferedResource) -> Resource {
    Resource::new(&resource.uri, &resource.name)
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let about = self.offer.about();
        let mut capabilities = ServerCapabilities::builder().enable_tools().build();
        capabilities.prompts = about.prompts.then(Default::default);
        capabilities.resources = about.resources.then(Default::default);
        let implementation = Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        ServerConfig::new(capabilities)
            .with_server_info(implementation.with_title(about.title))
            .with_instructions(about.instructions)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        let exchange = exchange(&context)?;
        let tools = allowed(exchange, &exchange.offered.tools, OfferedTool::operation, tool);
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: Context) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let operation = Operation::Tool { name: request.name.into_owned(), arguments };
        let input = input(request.input_responses, request.request_state);
        self.call(operation, input, &context).await?.into::<_, CallToolResult>()
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        let exchange = exchange(&context)?;
        let prompts = allowed(exchange, &exchange.offered.prompts, OfferedPrompt::operation, prompt);
        Ok(ListPromptsResult::with_all_items(prompts))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        let operation = Operation::Prompt { name: request.name, arguments: request.arguments.unwrap_or_default() };
        let input = input(request.input_responses, request.request_state);
        self.call(operation, input, &context).await?.into::<_, GetPromptResult>()
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        let exchange = exchange(&context)?;
        let resources = allowed(exchange, &exchange.offered.resources, OfferedResource::operation, resource);
        Ok(ListResourcesResult::with_all_items(resources))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let input = input(request.input_responses, request.request_state);
        let operation = Operation::Resource { uri: request.uri };
        self.call(operation, input, &context).await?.into::<_, ReadResourceResult>()
    }
}
