//! Tests of public servers: their lists, and their refusals of the newest revision.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use stock_backends::Public;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::Endpoint;
use crate::pipe::Pipe;
use crate::{envelope, names};

/// Asks a newly started server for its revisions, and then for its tools with one of them.
async fn revision_and_tools(mut pipe: Pipe) -> (Value, Value) {
    let discovered = pipe.ask("server/discover", json!({ "_meta": envelope() })).await;
    let listed = if discovered["result"].is_object() {
        pipe.ask("tools/list", json!({ "_meta": envelope() })).await
    } else {
        pipe.initialize().await;
        pipe.ask("tools/list", json!({})).await
    };
    assert!(pipe.ends_well().await);
    (discovered, listed)
}

#[tokio::test]
async fn each_public_server_has_its_revision_lists_the_pinned_tools_and_ends_with_its_input() {
    let answers = Public::ALL.map(async |server| {
        let scratch = tempfile::tempdir().unwrap();
        let launch = server.launch(scratch.path()).unwrap();
        (server, revision_and_tools(Pipe::start(&launch)).await)
    });
    for (server, (discovered, listed)) in join_all(answers).await {
        let error = &discovered["error"];
        match server {
            Public::Everything | Public::Filesystem | Public::Memory | Public::SequentialThinking => {
                assert_eq!(*error, json!({ "code": -32601, "message": "Method not found" }), "{server:?}");
            }
            Public::Sqlite | Public::Calculator => {
                let expected = json!({ "code": -32602, "message": "Invalid request parameters", "data": "" });
                assert_eq!(*error, expected, "{server:?}");
            }
            Public::Time | Public::Git | Public::Greeter => {
                assert_eq!(discovered["result"]["supportedVersions"], json!(["2026-07-28"]), "{server:?}");
            }
        }
        assert_eq!(names(&listed), server.tools(), "{server:?}");
    }
}

#[tokio::test]
async fn everything_over_http_has_sessions_refuses_a_discover_without_an_id_and_ends_when_dropped() {
    let scratch = tempfile::tempdir().unwrap();
    let backend = Public::Everything.start_http(scratch.path()).await.unwrap();
    let mut endpoint = Endpoint::new(backend.url());
    let refused = endpoint.ask_modern("server/discover", json!({})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        refused.message(),
        json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32000, "message": "Bad Request: Server not initialized" } })
    );
    endpoint.initialize().await;
    assert_eq!(names(&endpoint.ask("tools/list", json!({})).await.message()), Public::Everything.tools());
    // Without a request, the server keeps a connection for a minute.
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, backend.port)).await.unwrap();
    drop(backend);
    // The kernel ends or resets it with the process.
    let end = timeout(Duration::from_secs(30), connection.read(&mut [0])).await.expect("it still runs");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn the_greeter_over_http_speaks_both_revisions_and_returns_the_assertion_of_its_header() {
    let scratch = tempfile::tempdir().unwrap();
    let backend = Public::Greeter.start_http(scratch.path()).await.unwrap();
    let mut endpoint = Endpoint::new(backend.url());
    let discovered = endpoint.ask_modern("server/discover", json!({})).await;
    assert_eq!(discovered.message()["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(names(&endpoint.ask_modern("tools/list", json!({})).await.message()), Public::Greeter.tools());
    endpoint.initialize().await;
    assert_eq!(names(&endpoint.ask("tools/list", json!({})).await.message()), Public::Greeter.tools());
    let call =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "who", "arguments": {} } });
    let answer = Endpoint::send(endpoint.post(&call).header("mcp-entra-assertion", "of.the.user")).await.message();
    assert_eq!(answer["result"]["structuredContent"], json!({ "header": "of.the.user", "meta": null }));
}

#[tokio::test]
async fn the_greeter_over_stdio_returns_the_assertion_of_the_message() {
    let scratch = tempfile::tempdir().unwrap();
    let mut pipe = Pipe::start(&Public::Greeter.launch(scratch.path()).unwrap());
    let mut meta = envelope();
    meta["dev.mcp-entra/assertion"] = json!("of.the.user");
    let answer = pipe.ask("tools/call", json!({ "name": "who", "arguments": {}, "_meta": meta })).await;
    assert_eq!(answer["result"]["structuredContent"], json!({ "header": null, "meta": "of.the.user" }));
    let answer = pipe.ask("resources/read", json!({ "uri": "greetings://Ada", "_meta": envelope() })).await;
    assert_eq!(answer["result"]["contents"][0]["text"], "Hello, Ada!");
}
