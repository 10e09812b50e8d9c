//! Tests of sessions, revisions and streams of the scripted backend.

use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use stock_backends::scripted::{Era, Options, start};
use tokio::time::{Duration, timeout};

use crate::http::Endpoint;
use crate::peer::{Peer, Transport, with_envelope};

#[tokio::test]
async fn each_era_answers_a_discover() {
    for mut peer in Peer::each().await {
        let answer = peer.ask("server/discover", json!({})).await;
        match peer.era {
            Era::Modern => assert_eq!(answer["result"]["supportedVersions"], json!(["2026-07-28"]), "{}", peer.name),
            Era::Legacy => assert_eq!(answer["error"]["code"], -32601, "{}", peer.name),
        }
    }
}

#[tokio::test]
async fn a_legacy_backend_has_sessions_and_forgets_them() {
    let mut peer = Peer::over_http(Options::of(Era::Legacy)).await;
    assert_eq!(peer.call("counts", json!({})).await["result"]["structuredContent"]["sessions"], 1);
    assert_eq!(peer.text("forget_session", json!({})).await, "forgotten");
    let Transport::Http(endpoint, backend) = &mut peer.transport else { panic!("over HTTP") };
    assert_eq!(endpoint.ask("tools/list", json!({})).await.status, StatusCode::NOT_FOUND);
    let stranger = Endpoint::new(backend.url());
    assert_eq!(stranger.ask("tools/list", json!({})).await.status, StatusCode::BAD_REQUEST);
    endpoint.initialize().await;
    assert_eq!(endpoint.ask("tools/list", json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_stateless_backend_asks_for_no_session() {
    let backend = start(Options { stateless: true, ..Options::default() }).await.unwrap();
    let mut endpoint = Endpoint::new(backend.url());
    endpoint.initialize().await;
    let answer = endpoint.ask("tools/list", json!({})).await;
    assert_eq!((answer.status, answer.headers.get("mcp-session-id")), (StatusCode::OK, None));
}

#[tokio::test]
async fn a_modern_backend_compares_headers_with_the_body_and_refuses_other_revisions() {
    let backend = start(Options::of(Era::Modern)).await.unwrap();
    let endpoint = Endpoint::new(backend.url());
    let call = |tool: &str, arguments: Value| {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": with_envelope(&json!({})) });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let post = endpoint.post(&message).header("mcp-protocol-version", "2026-07-28");
        post.header("mcp-method", "tools/call")
    };
    let regional = || call("regional", json!({ "region": "Malmö" }));
    for (request, status) in [
        (call("add", json!({})), StatusCode::BAD_REQUEST),
        (call("add", json!({})).header("mcp-name", "echo"), StatusCode::BAD_REQUEST),
        (call("add", json!({})).header("mcp-name", "=?base64?YWRk?="), StatusCode::OK),
        (regional().header("mcp-name", "regional"), StatusCode::BAD_REQUEST),
        (regional().header("mcp-name", "regional").header("mcp-param-region", "=?base64?TWFsbcO2?="), StatusCode::OK),
    ] {
        let answer = Endpoint::send(request).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(answer.message()["error"]["code"] == -32020, status != StatusCode::OK);
    }
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2099-01-01" });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": meta } });
    let request =
        endpoint.post(&message).header("mcp-protocol-version", "2099-01-01").header("mcp-method", "tools/list");
    let answer = Endpoint::send(request).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.message()["error"]["data"]["supported"], json!(["2026-07-28"]));
}

/// Reads a stream until it has sent all of these, in any order.
async fn tells(answer: reqwest::Response, expected: &[&str]) {
    let mut stream = answer.bytes_stream();
    let mut told = String::new();
    let read = async {
        while !expected.iter().all(|one| told.contains(one)) {
            told.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
    };
    timeout(Duration::from_secs(30), read).await.unwrap();
    assert!(!told.contains("note/2"), "{told}");
}

#[tokio::test]
async fn changes_are_sent_on_the_stream_of_a_session() {
    let mut peer = Peer::over_http(Options::of(Era::Legacy)).await;
    peer.ask("resources/subscribe", json!({ "uri": "scripted://note/1" })).await;
    let Transport::Http(endpoint, backend) = &peer.transport else { panic!("over HTTP") };
    let stream = endpoint.get().send().await.unwrap();
    backend.announce_lists().await;
    backend.announce_resource("scripted://note/2").await;
    backend.announce_resource("scripted://note/1").await;
    tells(stream, &["tools/list_changed", "prompts/list_changed", "resources/list_changed", "note/1"]).await;
}

#[tokio::test]
async fn changes_are_sent_to_a_modern_client_by_its_filter() {
    let peer = Peer::over_http(Options::of(Era::Modern)).await;
    let Transport::Http(endpoint, backend) = &peer.transport else { panic!("over HTTP") };
    let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["scripted://note/1"] });
    let params = json!({ "notifications": filter, "_meta": with_envelope(&json!({})) });
    let message = json!({ "jsonrpc": "2.0", "id": "listens", "method": "subscriptions/listen", "params": params });
    let request = endpoint.post(&message).header("mcp-protocol-version", "2026-07-28");
    let stream = request.header("mcp-method", "subscriptions/listen").send().await.unwrap();
    // The answer has begun, so the acknowledgement was sent. The listener is counted right after it.
    while backend.listeners() == 0 {
        tokio::task::yield_now().await;
    }
    backend.announce_resource("scripted://note/2").await;
    backend.announce_lists().await;
    backend.announce_resource("scripted://note/1").await;
    let id = r#""io.modelcontextprotocol/subscriptionId":"listens""#;
    tells(stream, &["subscriptions/acknowledged", "tools/list_changed", "note/1", id]).await;
}

#[tokio::test]
async fn changes_are_sent_over_stdio() {
    let mut peer = Peer::over_stdio(Options::of(Era::Legacy)).await;
    peer.ask("resources/subscribe", json!({ "uri": "scripted://note/1" })).await;
    let Transport::Pipe(pipe) = &mut peer.transport else { panic!("over stdio") };
    for (arguments, expected) in [
        (json!({ "kind": "tools" }), "notifications/tools/list_changed"),
        (json!({ "uri": "scripted://note/1" }), "notifications/resources/updated"),
        (json!({ "uri": "scripted://note/2", "to_all": true }), "notifications/resources/updated"),
    ] {
        let params = json!({ "name": "announce", "arguments": arguments });
        pipe.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })).await;
        assert_eq!(pipe.message().await["method"], expected);
        assert_eq!(pipe.message().await["id"], 1);
    }
}

#[tokio::test]
async fn backends_without_streams_refuse_them() {
    for options in [Options { get_405: true, ..Options::default() }, Options::of(Era::Modern)] {
        let peer = Peer::over_http(options).await;
        let Transport::Http(endpoint, _) = &peer.transport else { panic!("over HTTP") };
        assert_eq!(Endpoint::send(endpoint.get()).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[tokio::test]
async fn a_slow_start_delays_the_first_answer() {
    let begin = tokio::time::Instant::now();
    let mut peer = Peer::over_http(Options { slow_start: 300, ..Options::of(Era::Modern) }).await;
    peer.ask("server/discover", json!({})).await;
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_discover_may_stay_unanswered() {
    let peer = Peer::over_http(Options { silent_discover: true, ..Options::of(Era::Modern) }).await;
    let Transport::Http(endpoint, _) = &peer.transport else { panic!("over HTTP") };
    let asked = endpoint.ask_modern("server/discover", json!({}));
    assert!(timeout(Duration::from_millis(200), asked).await.is_err());
}

#[tokio::test]
async fn a_backend_over_http_may_be_a_process() {
    let scratch = tempfile::tempdir().unwrap();
    let mut backend = Options::of(Era::Modern).start_http(scratch.path()).await.unwrap();
    let endpoint = Endpoint::new(backend.url());
    let answer = endpoint.ask_modern("tools/call", json!({ "name": "pid", "arguments": {} })).await;
    assert_eq!(crate::peer::text_of(&answer.message()), backend.pid().unwrap().to_string());
    backend.kill().await.unwrap();
    assert!(endpoint.get().send().await.is_err());
}
