//! Tests of the scripted backend's correct behaviour, for each era and transport.

use serde_json::{Value, json};
use stock_backends::scripted::{Era, Options, TOOLS};
use tokio::time::Duration;

use crate::peer::{Peer, Transport, text_of, with_envelope};

#[tokio::test]
async fn lists_have_several_pages() {
    for mut peer in Peer::each().await {
        let (tools, pages) = peer.all("tools/list", "tools").await;
        let listed: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        let known: Vec<_> = TOOLS.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed, known, "{}", peer.name);
        assert_eq!(pages, known.len().div_ceil(10), "{}", peer.name);
        for (method, member, entries) in [
            ("prompts/list", "prompts", 14),
            ("resources/list", "resources", 13),
            ("resources/templates/list", "resourceTemplates", 2),
        ] {
            let (listed, _) = peer.all(method, member).await;
            assert_eq!(listed.len(), entries, "{} {method}", peer.name);
        }
        let unknown = peer.ask("tools/list", json!({ "cursor": "nowhere" })).await;
        assert_eq!(unknown["error"]["code"], -32602, "{}", peer.name);
    }
}

#[tokio::test]
async fn only_in_the_modern_era_results_have_a_type_and_lists_a_scope() {
    for mut peer in Peer::each().await {
        let (listed, added) =
            (peer.ask("tools/list", json!({})).await, peer.call("add", json!({ "a": 1, "b": 2 })).await);
        assert_eq!(added["result"]["structuredContent"]["sum"], 3.0, "{}", peer.name);
        let modern = peer.era == Era::Modern;
        for answer in [&listed, &added] {
            assert_eq!(answer["result"]["resultType"] == "complete", modern, "{}", peer.name);
        }
        assert_eq!(listed["result"]["cacheScope"] == "public", modern, "{}", peer.name);
    }
}

#[tokio::test]
async fn arguments_are_echoed_as_they_were_written() {
    let written = r#"{"z":1.50,"a":12345678901234567890123.0e-7,"é":"é","m":{"b":1,"a":[ ]}}"#;
    for era in [Era::Legacy, Era::Modern] {
        let mut peer = Peer::over_stdio(Options::of(era)).await;
        let Transport::Pipe(pipe) = &mut peer.transport else { panic!("over stdio") };
        let meta = with_envelope(&json!({}));
        let params = format!(r#"{{"name":"echo","arguments":{written},"_meta":{meta}}}"#);
        pipe.send_line(&format!(r#"{{"jsonrpc":"2.0","id":"7.0","method":"tools/call","params":{params}}}"#)).await;
        let answer = pipe.message().await;
        assert_eq!(answer["id"], "7.0");
        assert_eq!(text_of(&answer), written);
    }
}

#[tokio::test]
async fn a_caller_gets_its_message_as_the_backend_received_it() {
    for mut peer in Peer::each().await {
        let params =
            json!({ "name": "whoami", "arguments": {}, "_meta": { "dev.mcp-entra/assertion": "of.the.user" } });
        let answer = peer.ask("tools/call", params).await;
        let told = &answer["result"]["structuredContent"];
        assert_eq!(told["meta"]["dev.mcp-entra/assertion"], "of.the.user", "{}", peer.name);
        let over_http = matches!(peer.transport, Transport::Http(..));
        assert_eq!(told["headers"]["content-type"] == "application/json", over_http, "{}", peer.name);
        if let Transport::Http(_, backend) = &peer.transport {
            assert!(backend.received().last().unwrap().body.contains("of.the.user"), "{}", peer.name);
        }
    }
}

#[tokio::test]
async fn prompts_resources_and_completions_are_answered() {
    for mut peer in Peer::each().await {
        let prompt = peer.ask("prompts/get", json!({ "name": "greeting", "arguments": { "name": "Ada" } })).await;
        assert_eq!(prompt["result"]["messages"][0]["content"]["text"], "greeting Ada", "{}", peer.name);
        let read = peer.ask("resources/read", json!({ "uri": "scripted://note/1" })).await;
        assert_eq!(read["result"]["contents"][0]["uri"], "scripted://note/1", "{}", peer.name);
        let unknown = peer.ask("resources/read", json!({ "uri": "file:///etc/passwd" })).await;
        let code = if peer.era == Era::Modern { -32602 } else { -32002 };
        assert_eq!(unknown["error"]["code"], code, "{}", peer.name);
        let argument = json!({ "name": "name", "value": "A" });
        let reference = json!({ "type": "ref/prompt", "name": "greeting" });
        let completed = peer.ask("completion/complete", json!({ "ref": reference, "argument": argument })).await;
        assert_eq!(completed["result"]["completion"]["values"], json!(["Ada", "Alan"]), "{}", peer.name);
        assert_eq!(peer.call("nonsense", json!({})).await["error"]["code"], -32602, "{}", peer.name);
    }
}

/// A call with a progress token.
fn slow(era: Era, arguments: &Value) -> Value {
    let mut params = json!({ "name": "slow", "arguments": arguments, "_meta": { "progressToken": "of the test" } });
    if era == Era::Modern {
        params["_meta"] = with_envelope(&params);
    }
    json!({ "jsonrpc": "2.0", "id": 50, "method": "tools/call", "params": params })
}

#[tokio::test]
async fn a_slow_call_reports_progress_until_its_signal_is_given() {
    for era in [Era::Legacy, Era::Modern] {
        let mut peer = Peer::over_stdio(Options::of(era)).await;
        let Transport::Pipe(pipe) = &mut peer.transport else { panic!("over stdio") };
        pipe.send(&slow(era, &json!({ "signal": "go", "progress_ms": 5 }))).await;
        for step in 0..3 {
            let progress = pipe.message().await;
            assert_eq!(progress["params"]["progressToken"], "of the test");
            assert_eq!(progress["params"]["progress"], step);
        }
        assert_eq!(peer.text("release", json!({ "signal": "go" })).await, "released");
    }
}

#[tokio::test]
async fn a_slow_call_waits_for_a_file() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("go");
    let mut peer = Peer::over_stdio(Options::of(Era::Legacy)).await;
    let Transport::Pipe(pipe) = &mut peer.transport else { panic!("over stdio") };
    pipe.send(&slow(Era::Legacy, &json!({ "file": file, "progress_ms": 5 }))).await;
    assert_eq!(pipe.message().await["method"], "notifications/progress");
    std::fs::write(file, "").unwrap();
    loop {
        let message = pipe.message().await;
        if message["id"] == 50 {
            assert_eq!(text_of(&message), "released");
            break;
        }
    }
}

#[tokio::test]
async fn a_cancelled_call_is_counted_and_not_answered() {
    for era in [Era::Legacy, Era::Modern] {
        let mut peer = Peer::over_stdio(Options::of(era)).await;
        let Transport::Pipe(pipe) = &mut peer.transport else { panic!("over stdio") };
        pipe.send(&slow(era, &json!({ "signal": "never", "progress_ms": 10_000 }))).await;
        assert_eq!(pipe.message().await["method"], "notifications/progress");
        let cancelled = json!({ "requestId": 50, "reason": "of the test" });
        pipe.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled })).await;
        counted(&mut peer, "slow").await;
    }
}

#[tokio::test]
async fn only_in_the_modern_era_a_closed_answer_cancels_the_call() {
    for era in [Era::Legacy, Era::Modern] {
        let mut peer = Peer::over_http(Options::of(era)).await;
        let (params, method) = (json!({ "name": "never_answer", "arguments": {} }), "tools/call");
        let Transport::Http(endpoint, _) = &peer.transport else { panic!("over HTTP") };
        let asked = async {
            if era == Era::Modern {
                endpoint.ask_modern(method, params).await
            } else {
                endpoint.ask(method, params).await
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(200), asked).await.is_err());
        if era == Era::Modern {
            counted(&mut peer, "never_answer").await;
        } else {
            let counts = peer.call("counts", json!({})).await;
            assert_eq!(counts["result"]["structuredContent"]["cancelled"], json!([]));
        }
    }
}

/// Waits until the backend has counted a cancelled call of this tool.
async fn counted(peer: &mut Peer, tool: &str) {
    let counted = async {
        while peer.call("counts", json!({})).await["result"]["structuredContent"]["cancelled"] != json!([tool]) {}
    };
    tokio::time::timeout(Duration::from_secs(30), counted).await.unwrap();
}

#[tokio::test]
async fn only_in_the_modern_era_input_is_required() {
    for mut peer in Peer::each().await {
        let asked = peer.call("needs_state", json!({ "rounds": 2 })).await;
        if peer.era == Era::Legacy {
            assert_eq!(asked["error"]["code"], -32602, "{}", peer.name);
            continue;
        }
        assert_eq!(asked["result"]["resultType"], "input_required", "{}", peer.name);
        let again = |state: &str| json!({ "name": "needs_state", "arguments": { "rounds": 2 }, "requestState": state });
        let asked = peer.ask("tools/call", again("round 1")).await;
        assert_eq!(asked["result"]["requestState"], "round 2", "{}", peer.name);
        assert_eq!(text_of(&peer.ask("tools/call", again("round 2")).await), "done in round 2");
        assert_eq!(peer.ask("tools/call", again("forged")).await["result"]["isError"], true, "{}", peer.name);
        let asked = peer.call("needs_input", json!({})).await;
        assert_eq!(asked["result"]["inputRequests"]["name"]["method"], "elicitation/create", "{}", peer.name);
        let said = json!({ "name": { "action": "decline" } });
        let answered = json!({ "name": "needs_input", "arguments": {}, "inputResponses": said });
        assert_eq!(text_of(&peer.ask("tools/call", answered).await), said.to_string());
    }
}

#[tokio::test]
async fn a_changed_tool_differs_only_in_the_changed_members() {
    for mut peer in Peer::each().await {
        let add = async |peer: &mut Peer| {
            let (tools, _) = peer.all("tools/list", "tools").await;
            tools.into_iter().find(|tool| tool["name"] == "add").unwrap()
        };
        for (what, member) in
            [("description", "description"), ("schema", "inputSchema"), ("annotations", "annotations")]
        {
            let before = add(&mut peer).await;
            peer.text("change_tools", json!({ "what": what })).await;
            let mut after = add(&mut peer).await;
            assert_ne!(after[member], before[member], "{} {what}", peer.name);
            after[member] = before[member].clone();
            assert_eq!(after, before, "{} {what}", peer.name);
        }
    }
}
