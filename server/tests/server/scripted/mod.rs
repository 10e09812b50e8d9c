//! Tests of a server with a scripted offer, which does not know Microsoft Graph.

mod headers;
mod lists;
mod offer;
mod streams;
mod subscriptions;

use std::sync::Arc;

use mcp_entra_policy::{CompiledPolicy, Pattern};
use mcp_entra_server::authorize::{Message, Permissions};
use mcp_entra_server::offer::Offer;
use mcp_entra_server::protocol::{Answer, Exchange, Protocol, Revision};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use self::offer::Scripted;
use crate::harness::{PATIENCE, Setup, Site, eventually, grant_to_readers};
use crate::identity::signed_in;
use crate::tenant::{ALICE, TestTenant};

const PROTOCOL: &str = "2026-07-28";

/// A server with such an offer. Its policy grants everything that a prefix may grant, except secrets, and one tool that
/// writes by name.
struct Stage {
    offer: Arc<Scripted>,
    site: Site,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// A server with such an offer, and this change of the setup.
    async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let (offer, mut setup) = (Arc::new(Scripted::default()), Setup::new());
        setup.offer = Some(Arc::clone(&offer) as Arc<dyn Offer>);
        let mut grant = grant_to_readers(&["*", "writes"]);
        grant.allow.prompts = vec![Pattern("*".into())];
        grant.allow.resources = vec![Pattern("memo://*".into())];
        setup.policy.grants = vec![grant];
        change(&mut setup);
        Self { offer, site: setup.start().await }
    }

    fn request(&self, method: &str, params: Value, is_modern: bool) -> RequestBuilder {
        let token = self.site.setup.tenant.token(ALICE);
        self.request_by(&token, method, params, is_modern)
    }

    fn request_by(&self, token: &str, method: &str, mut params: Value, is_modern: bool) -> RequestBuilder {
        let mut request = self.site.request().bearer_auth(token);
        if is_modern {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(PROTOCOL);
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "elicitation": {} });
            request = request.header("mcp-protocol-version", PROTOCOL).header("mcp-method", method);
            if let Some(name) = params.get("name").or(params.get("uri")) {
                request = request.header("mcp-name", name.as_str().unwrap());
            }
        }
        request.body(json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string())
    }

    async fn send(&self, request: RequestBuilder) -> Value {
        request.send().await.unwrap().json().await.unwrap()
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        self.send(self.request(method, params, true)).await
    }

    /// Applies the initial policy with this change.
    fn change_policy(&self, change: impl FnOnce(&mut CompiledPolicy)) {
        let mut policy = self.site.setup.policy.clone();
        change(&mut policy);
        self.site.setup.write_policy(&policy);
    }

    fn calls(&self) -> usize {
        self.offer.calls.lock().unwrap().len()
    }
}

/// An event stream of a server.
pub(crate) struct Events {
    response: Response,
    read: String,
}

impl Events {
    pub(crate) fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!((header("cache-control"), header("x-accel-buffering")), ("no-store".into(), "no".into()));
        Self { response, read: String::new() }
    }

    /// Returns the next message, or `None` at the end of the stream. Comments are skipped.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some((event, rest)) = self.read.split_once("\n\n") {
                let message = event.strip_prefix("data: ").map(|message| serde_json::from_str(message).unwrap());
                self.read = rest.to_owned();
                if message.is_some() {
                    return message;
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("an event").unwrap()?;
            self.read += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// Returns all messages to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<Value> {
        let mut messages = vec![];
        while let Some(message) = self.next().await {
            messages.push(message);
        }
        messages
    }
}

fn names(answer: &Value, list: &str, name: &str) -> Vec<String> {
    let entries = answer["result"][list].as_array().unwrap_or_else(|| panic!("{answer}"));
    entries.iter().map(|entry| entry[name].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_description_is_that_of_the_offer() {
    let answer = Stage::new().await.ask("server/discover", json!({})).await;
    let result = &answer["result"];
    assert_eq!(result["instructions"], "Try it.", "{answer}");
    for capability in ["tools", "prompts", "resources"] {
        assert!(result["capabilities"][capability].is_object(), "{answer}");
    }
}

#[tokio::test]
async fn lists_show_what_the_caller_may_use_and_are_private() {
    let stage = Stage::new().await;
    let tools = stage.ask("tools/list", json!({})).await;
    let names_of_tools = names(&tools, "tools", "name");
    assert_eq!(names_of_tools.len(), 11, "a tool that writes is granted only by its name: {names_of_tools:?}");
    assert!(!names_of_tools.contains(&"writes_too".to_owned()));
    for tool in tools["result"]["tools"].as_array().unwrap() {
        assert_eq!(tool["annotations"]["readOnlyHint"], tool["name"] != "writes", "{tool}");
    }
    assert_eq!(tools["result"]["cacheScope"], "private");
    let prompts = stage.ask("prompts/list", json!({})).await;
    assert_eq!(names(&prompts, "prompts", "name"), ["greet"]);
    let resources = stage.ask("resources/list", json!({})).await;
    assert_eq!(names(&resources, "resources", "uri"), ["memo://one"]);
    assert_eq!(stage.calls(), 0);
}

#[tokio::test]
async fn a_call_reaches_the_offer_with_its_arguments_and_the_answer_is_of_the_clients_revision() {
    let stage = Stage::new().await;
    for (modern, result_type) in [(true, json!("complete")), (false, Value::Null)] {
        let params = json!({ "name": "echo", "arguments": { "a": [1, null] } });
        let answer = stage.send(stage.request("tools/call", params, modern)).await;
        assert_eq!(answer["id"], 7);
        assert_eq!(answer["result"]["structuredContent"], json!({ "a": [1, null] }), "{answer}");
        assert_eq!(answer["result"]["resultType"], result_type, "{answer}");
    }
    let prompt = stage.ask("prompts/get", json!({ "name": "greet", "arguments": { "name": "Bob" } })).await;
    assert_eq!(prompt["result"]["messages"][0]["content"]["text"], "Greet Bob.", "{prompt}");
    let resource = stage.ask("resources/read", json!({ "uri": "memo://one" })).await;
    assert_eq!(resource["result"]["contents"][0]["text"], "Remember.", "{resource}");
}

#[tokio::test]
async fn an_error_of_the_offer_is_the_clients_error() {
    let answer = Stage::new().await.ask("tools/call", json!({ "name": "broken" })).await;
    assert_eq!(answer["error"], json!({ "code": -32000, "message": "It is broken." }), "{answer}");
}

#[tokio::test]
async fn calls_that_are_not_offered_or_not_granted_do_not_reach_the_offer() {
    let stage = Stage::new().await;
    for (method, params) in [
        ("tools/call", json!({ "name": "nothing" })),
        ("prompts/get", json!({ "name": "nothing" })),
        ("resources/read", json!({ "uri": "memo://nothing" })),
    ] {
        let answer = stage.ask(method, params).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().ends_with(" not found"), "{answer}");
    }
    assert_eq!(stage.calls(), 0);
}

#[tokio::test]
async fn a_call_without_a_decision_is_refused() {
    let offer = Arc::new(Scripted::default());
    let principal = signed_in(&TestTenant::new(), ALICE).await;
    let exchange = Exchange {
        permissions: Permissions::new(Arc::clone(principal.caller()), Arc::default()),
        offered: offer.snapshot(&principal).await.unwrap(),
        principal,
        granted: None,
        revision: Revision::V2026_07_28,
        asks: None,
    };
    let protocol = Protocol::new(Arc::clone(&offer) as Arc<dyn Offer>);
    for (method, params) in [
        ("tools/call", json!({ "name": "echo" })),
        ("prompts/get", json!({ "name": "greet" })),
        ("resources/read", json!({ "uri": "memo://one" })),
    ] {
        let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string();
        let message = Message::parse(request.as_bytes()).unwrap();
        let Answer::Later(call) = protocol.answer(message, &exchange) else { panic!("{method}") };
        assert_eq!(call.finish().await.error, Some(-32603), "{method}");
    }
    assert_eq!(offer.calls.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_panic_of_the_offer_is_answered_at_once_without_its_payload() {
    let stage = Stage::new().await;
    for modern in [true, false] {
        let answering = stage.send(stage.request("tools/call", json!({ "name": "panics" }), modern));
        let answer = tokio::time::timeout(PATIENCE, answering).await.expect("an answer");
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)), "{answer}");
        assert!(!answer.to_string().contains("a secret"), "{answer}");
    }
}

#[tokio::test]
async fn a_required_sign_in_is_a_challenge_once_and_then_an_error_message() {
    let stage = Stage::new().await;
    let call = || stage.request("tools/call", json!({ "name": "signs_in" }), true);
    assert_eq!(call().send().await.unwrap().status(), 401);
    let answer = stage.send(call()).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert_eq!(answer["result"]["content"][0]["text"], "Sign in again.", "{answer}");
}

#[tokio::test]
async fn a_client_gives_input_that_a_call_requires_and_calls_again() {
    let stage = Stage::new().await;
    let mut params = json!({ "name": "asks" });
    let asked = stage.ask("tools/call", params.clone()).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    assert_eq!(asked["result"]["inputRequests"]["sure"]["method"], "elicitation/create", "{asked}");
    params["requestState"] = asked["result"]["requestState"].clone();
    params["inputResponses"] = json!({ "sure": { "action": "accept" } });
    let answer = stage.ask("tools/call", params).await;
    assert_eq!(answer["result"]["structuredContent"]["sure"]["action"], "accept", "{answer}");
    let calls = stage.offer.calls.lock().unwrap();
    assert_eq!(calls.last().unwrap().1.state.as_deref(), Some("asked"));
}

#[tokio::test]
async fn the_disconnection_of_a_client_ends_its_call_only_from_2026_07_28_on() {
    let stage = Stage::new().await;
    for is_modern in [true, false] {
        let (hanging, mut ended) = oneshot::channel();
        *stage.offer.hanging.lock().unwrap() = Some(hanging);
        let request = tokio::spawn(stage.request("tools/call", json!({ "name": "hangs" }), is_modern).send());
        eventually("the call has begun", async || stage.offer.hanging.lock().unwrap().is_none().then_some(())).await;
        assert!(!request.is_finished());
        request.abort();
        if is_modern {
            assert!(tokio::time::timeout(PATIENCE, ended).await.expect("the call continues").is_err());
        } else {
            // The client has gone after its line is written, and the call continues.
            let is_over = |line: &Value| line["tool"] == "hangs" && line["status"].is_null();
            let lines = || stage.site.audit().into_iter().filter(is_over).count();
            eventually("both clients have gone", async || (lines() == 2).then_some(())).await;
            assert!(matches!(ended.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        }
    }
}
