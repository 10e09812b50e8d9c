//! Offer that behaves as a test requires, and records its calls.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use mcp_entra_server::entra::SignIn;
use mcp_entra_server::offer::{
    About, Call, Change, Changes, Completion, CompletionRequest, Failure, Input, InputRequired, JsonObject, LogLevel,
    Offer, Offered, OfferedPrompt, OfferedResource, OfferedTemplate, OfferedTool, Operation, Progress, PromptArgument,
    Reply, Unavailable,
};
use mcp_entra_server::token::Principal;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

/// The offer.
pub(super) struct Scripted {
    pub(super) calls: Mutex<Vec<(Operation, Input)>>,
    /// Dropped with the call of the tool `hangs`.
    pub(super) hanging: Mutex<Option<oneshot::Sender<Infallible>>>,
    /// Ends the tools `waits` and `waits_to_sign_in`.
    pub(super) goes_on: Notify,
    offered: Mutex<Arc<Offered>>,
    changes: Changes,
}

impl Default for Scripted {
    fn default() -> Self {
        let offered = Mutex::new(Arc::new(offered(&TOOLS)));
        let (calls, hanging) = (Mutex::default(), Mutex::default());
        Self { calls, hanging, goes_on: Notify::new(), offered, changes: Changes::new() }
    }
}

impl Scripted {
    /// Offers these tools from now on, and announces the change.
    pub(super) fn offer_tools(&self, tools: &[&str]) {
        *self.offered.lock().unwrap() = Arc::new(offered(tools));
        self.changes.tell(Change::Offered);
    }

    /// Announces that the content of a resource has changed.
    pub(super) fn update(&self, uri: &str) {
        self.changes.tell(Change::Resource(uri.into()));
    }
}

#[async_trait]
impl Offer for Scripted {
    fn about(&self) -> Arc<About> {
        Arc::new(About {
            title: "Scripted".into(),
            instructions: "Try it.".into(),
            prompts: true,
            resources: true,
            completions: true,
            logs: true,
            updates_resources: true,
        })
    }

    async fn snapshot(&self, _: &Arc<Principal>) -> Result<Arc<Offered>, Unavailable> {
        Ok(Arc::clone(&self.offered.lock().unwrap()))
    }

    fn changes(&self) -> Changes {
        self.changes.clone()
    }

    async fn complete(&self, completing: CompletionRequest, _: &Arc<Principal>) -> Result<Completion, Failure> {
        match completing.argument.as_str() {
            "name" | "id" => {
                Ok(Completion { values: (0..150).map(|at| format!("{}{at}", completing.value)).collect() })
            }
            _ => Err(Failure::invalid("no such argument")),
        }
    }

    async fn call(&self, call: Call) -> Reply {
        self.calls.lock().unwrap().push((call.operation.clone(), call.input.clone()));
        match call.operation {
            Operation::Prompt { arguments, .. } => {
                let text = format!("Greet {}.", arguments["name"].as_str().unwrap());
                let message = json!({ "role": "user", "content": { "type": "text", "text": text } });
                Reply::Complete(object(json!({ "messages": [message] })))
            }
            Operation::Resource { uri } => {
                Reply::Complete(object(json!({ "contents": [{ "uri": uri, "text": "Remember." }] })))
            }
            Operation::Tool { name, arguments } => match name.as_str() {
                "echo" => Reply::structured(Value::Object(JsonObject::clone(&arguments))),
                "hangs" => {
                    let _ends_with_the_call = self.hanging.lock().unwrap().take();
                    std::future::pending().await
                }
                "waits" => {
                    self.goes_on.notified().await;
                    Reply::structured(json!({ "waited": true }))
                }
                "waits_to_sign_in" => {
                    call.client.notices.progress("it takes a sign-in");
                    self.goes_on.notified().await;
                    Reply::SignIn(SignIn::Anew, "Sign in again.".into())
                }
                "tells" => {
                    let notices = &call.client.notices;
                    notices.progress("begun");
                    notices.log(LogLevel::Info, json!("so far"));
                    notices.log(LogLevel::Error, json!({ "went": "wrong" }));
                    notices.report(Progress { done: Some(5.0), total: Some(5.0), message: None });
                    // Progress must increase.
                    notices.report(Progress { done: Some(5.0), total: Some(5.0), message: None });
                    Reply::structured(json!({ "told": true }))
                }
                "asks" if call.input == Input::default() => {
                    let request = json!({ "method": "elicitation/create", "params": {
                        "mode": "form", "message": "Sure?", "requestedSchema": { "type": "object", "properties": {} },
                    } });
                    let requests = [("sure".to_owned(), request)].into();
                    Reply::InputRequired(InputRequired { requests, state: Some("asked".into()) })
                }
                "asks" => Reply::structured(json!(call.input.responses)),
                "panics" => panic!("a secret"),
                "signs_in" => Reply::SignIn(SignIn::Anew, "Sign in again.".into()),
                _ => Reply::Failed(Failure { code: -32000, message: "It is broken.".into(), data: None }),
            },
        }
    }
}

const TOOLS: [&str; 12] = [
    "asks",
    "broken",
    "echo",
    "hangs",
    "panics",
    "placed",
    "signs_in",
    "tells",
    "waits",
    "waits_to_sign_in",
    "writes",
    "writes_too",
];

fn object(value: Value) -> JsonObject {
    serde_json::from_value(value).unwrap()
}

fn offered(tools: &[&str]) -> Offered {
    let tool = |name: &&str| OfferedTool {
        name: (*name).into(),
        writes: name.starts_with("writes"),
        title: (*name).into(),
        description: "It is scripted.".into(),
        input_schema: Arc::new(object(schema(name))),
        ..OfferedTool::default()
    };
    let argument = PromptArgument { name: "name".into(), required: true, ..PromptArgument::default() };
    let prompt = OfferedPrompt {
        name: "greet".into(),
        description: "Greets.".into(),
        arguments: vec![argument],
        ..OfferedPrompt::default()
    };
    let resource = |uri: &str| OfferedResource { uri: uri.into(), name: "Memo".into(), ..OfferedResource::default() };
    let resources = ["memo://one", "secret://two"].map(resource).into();
    let template =
        |text: &str| OfferedTemplate { uri_template: text.into(), name: "Memos".into(), ..OfferedTemplate::default() };
    let templates = ["memo://all/{id}", "secret://all/{id}"].map(template).into();
    Offered::new(tools.iter().map(tool).collect(), vec![prompt], resources, templates)
}

fn schema(tool: &str) -> Value {
    let region = json!({ "type": "string", "x-mcp-header": "Region" });
    let floor = json!({ "type": "object", "properties": { "number": { "type": "integer", "x-mcp-header": "Floor" } } });
    match tool {
        "placed" => json!({ "type": "object", "properties": { "region": region, "floor": floor } }),
        _ => json!({ "type": "object" }),
    }
}
