//! Tests of public MCP servers, unmodified, behind a server: listed by role, called, and refused.

use serde_json::{Value, json};
use stock_backends::Public;
use tempfile::TempDir;

use super::stage::request;
use super::{Shim, ask, call, over_http, over_stdio, setup};
use crate::harness::{Site, eventually};
use crate::scripted::Events;
use crate::tenant::ALICE;

/// A public server over stdio.
struct Stdio {
    site: Site,
    _shim: Shim,
    _scratch: TempDir,
}

async fn stdio(public: Public, tools: &[&str]) -> Stdio {
    let scratch = tempfile::tempdir().unwrap();
    let shim = Shim::start(&public.launch(scratch.path()).unwrap()).await;
    let site = setup(over_stdio(), Some(shim.socket()), tools).start().await;
    Stdio { site, _shim: shim, _scratch: scratch }
}

/// Returns the tool that tests call, with its arguments and a part of its answer.
fn call_of(public: Public, scratch: &str) -> (&'static str, Value, &'static str) {
    match public {
        Public::Everything => ("echo", json!({ "message": "hej" }), "Echo: hej"),
        Public::Filesystem => ("list_directory", json!({ "path": scratch }), ""),
        Public::Memory => ("read_graph", json!({}), "entities"),
        Public::SequentialThinking => {
            let thought = json!({ "thought": "a", "nextThoughtNeeded": false, "thoughtNumber": 1, "totalThoughts": 1 });
            ("sequentialthinking", thought, "thoughtHistoryLength")
        }
        Public::Time => ("get_current_time", json!({ "timezone": "Europe/Stockholm" }), "Europe/Stockholm"),
        Public::Git => ("git_status", json!({ "repo_path": format!("{scratch}/repository") }), "No commits yet"),
        Public::Sqlite => ("list_tables", json!({}), "[]"),
        Public::Calculator => ("calculate", json!({ "expression": "6*7" }), "42"),
        Public::Greeter => ("greet", json!({ "name": "Alice" }), "Alice"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_public_server_over_stdio_shows_granted_tools_and_answers_clients_of_both_eras() {
    for public in Public::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let (tool, arguments, expected) = call_of(public, scratch.path().to_str().unwrap());
        let shim = Shim::start(&public.launch(scratch.path()).unwrap()).await;
        let site = setup(over_stdio(), Some(shim.socket()), &[tool]).start().await;
        let token = site.setup.tenant.token(ALICE);
        assert_eq!(site.tools(&token).await, [tool], "{public:?}");
        for is_modern in [true, false] {
            let result = call(&site, is_modern, tool, arguments.clone()).await;
            assert!(result.to_string().contains(expected), "{public:?} {result}");
            assert_ne!(result["isError"], true, "{public:?} {result}");
        }
        let hidden = public.tools().iter().find(|hidden| **hidden != tool);
        if let Some(hidden) = hidden {
            assert_eq!(site.call(&token, hidden, json!({})).await.status(), 403, "{public:?} {hidden}");
        }
        let status = eventually("the probe has ended", async || {
            site.status().await.backend.filter(|backend| backend.works == Some(true))
        });
        let status = status.await;
        assert_eq!(status.tools.len(), public.tools().len(), "{public:?} {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn public_servers_over_http_answer_clients_of_both_eras() {
    for public in [Public::Everything, Public::Greeter] {
        let scratch = tempfile::tempdir().unwrap();
        let (tool, arguments, expected) = call_of(public, scratch.path().to_str().unwrap());
        let backend = public.start_http(scratch.path()).await.unwrap();
        let site = setup(over_http(backend.port, backend.path), None, &[tool]).start().await;
        for is_modern in [true, false] {
            let result = call(&site, is_modern, tool, arguments.clone()).await;
            assert!(result.to_string().contains(expected), "{public:?} {result}");
        }
        let token = site.setup.tenant.token(ALICE);
        assert_eq!(site.tools(&token).await, [tool], "{public:?}");
        let hidden = public.tools().iter().find(|hidden| **hidden != tool).unwrap();
        for is_modern in [true, false] {
            let refused = request(&site, ALICE, is_modern, "tools/call", json!({ "name": hidden, "arguments": {} }));
            assert_eq!(refused.send().await.unwrap().status(), 403, "{public:?} {hidden}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_resources_and_completions_of_a_public_server_are_passed_on_over_both_transports() {
    let scratch = tempfile::tempdir().unwrap();
    let backend = Public::Everything.start_http(scratch.path()).await.unwrap();
    let over_http = setup(over_http(backend.port, backend.path), None, &["echo"]).start().await;
    let over_stdio = stdio(Public::Everything, &["echo"]).await;
    for site in [&over_http, &over_stdio.site] {
        for is_modern in [true, false] {
            let prompts = ask(site, is_modern, "prompts/list", json!({})).await;
            assert!(prompts["prompts"].as_array().unwrap().len() > 1, "{prompts}");
            let params = json!({ "name": "args-prompt", "arguments": { "city": "Lund", "state": "Skåne" } });
            let prompt = ask(site, is_modern, "prompts/get", params).await;
            assert_eq!(prompt["messages"][0]["content"]["text"], "What's weather in Lund, Skåne?", "{prompt}");
            let resources = ask(site, is_modern, "resources/list", json!({})).await;
            let uri = resources["resources"][0]["uri"].as_str().unwrap();
            let read = ask(site, is_modern, "resources/read", json!({ "uri": uri })).await;
            assert_eq!(read["contents"][0]["uri"], uri, "{read}");
            completes(site, is_modern).await;
        }
    }
}

/// Checks completions of a prompt's arguments, one of which depends on the other, and of a template's variable.
async fn completes(site: &Site, is_modern: bool) {
    let prompt = json!({ "type": "ref/prompt", "name": "completable-prompt" });
    let template = json!({ "type": "ref/resource", "uri": "demo://resource/dynamic/text/{resourceId}" });
    let sales = json!({ "arguments": { "department": "Sales" } });
    for (reference, argument, context, expected) in [
        (&prompt, ("department", "S"), json!({}), json!(["Sales", "Support"])),
        (&prompt, ("name", "E"), sales, json!(["Eve"])),
        (&template, ("resourceId", "7"), json!({}), json!(["7"])),
        (&template, ("resourceId", "x"), json!({}), json!([])),
    ] {
        let argument = json!({ "name": argument.0, "value": argument.1 });
        let params = json!({ "ref": reference, "argument": argument, "context": context });
        let completed = ask(site, is_modern, "completion/complete", params).await;
        assert_eq!(completed["completion"]["values"], expected, "{completed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_resources_of_a_public_server_reach_a_client_that_listens_over_both_transports() {
    let tool = "toggle-subscriber-updates";
    let scratch = tempfile::tempdir().unwrap();
    let backend = Public::Everything.start_http(scratch.path()).await.unwrap();
    let over_http = setup(over_http(backend.port, backend.path), None, &[tool]).start().await;
    let over_stdio = stdio(Public::Everything, &[tool]).await;
    for site in [&over_http, &over_stdio.site] {
        let resources = ask(site, true, "resources/list", json!({})).await;
        let uri = |at: usize| resources["resources"][at]["uri"].as_str().unwrap().to_owned();
        let params = json!({ "notifications": { "resourceSubscriptions": [uri(1), "demo://nothing"] } });
        let listening = request(site, ALICE, true, "subscriptions/listen", params).send().await.unwrap();
        let mut events = Events::of(listening);
        let first = events.next().await.unwrap();
        assert_eq!(first["params"]["notifications"]["resourceSubscriptions"], json!([uri(1)]), "{first}");
        call(site, true, tool, json!({})).await;
        for _ in 0..2 {
            let update = events.next().await.unwrap();
            assert_eq!(update["method"], "notifications/resources/updated", "{update}");
            assert_eq!(update["params"]["uri"], uri(1), "{update}");
        }
    }
}
