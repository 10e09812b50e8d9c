//! Tests of revisions of the protocol, in front of a backend and behind it.

use axum::http::Response;
use serde_json::{Value, json};
use stock_backends::scripted::{Era, Options};

use super::puppet::{Puppet, described, status, told};
use super::stage::{ERAS, Received, Stage, answer, request, text};
use crate::harness::{Site, eventually};
use crate::tenant::ALICE;

/// Returns the answer of a backend that agrees on this revision.
fn agreeing(received: &Received, revision: &str) -> Response<String> {
    match received.method() {
        "server/discover" => status(400),
        "initialize" => {
            let result = json!({ "protocolVersion": revision, "capabilities": { "tools": {} } });
            told(received, &format!(r#""result":{result}"#))
        }
        "tools/list" => told(received, r#""result":{"tools":[{"name":"a","inputSchema":{}}]}"#),
        "tools/call" => told(received, r#""result":{"content":[{"type":"text","text":"in"}]}"#),
        _ => described(received),
    }
}

async fn protocol(site: &Site) -> Option<String> {
    let works = async || site.status().await.backend.filter(|backend| backend.works == Some(true));
    eventually("the probe has ended", works).await.protocol
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_of_every_revision_with_a_handshake_serves_clients_of_both_eras() {
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let puppet = Puppet::start(move |received| agreeing(received, revision)).await;
        let site = puppet.site(&["a"]).await;
        for is_modern in [true, false] {
            let called = answer(request(&site, ALICE, is_modern, "tools/call", json!({ "name": "a" }))).await;
            assert_eq!(text(&called), "in", "{revision} {called}");
        }
        assert_eq!(protocol(&site).await.as_deref(), Some(revision));
        for received in puppet.received() {
            let named = received.headers.get("mcp-protocol-version").map(String::as_str);
            let expected = match received.method() {
                "server/discover" => Some("2026-07-28"),
                "initialize" => None,
                _ => Some(revision),
            };
            assert_eq!(named, expected, "{received:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_of_an_unknown_revision_is_not_called_and_the_status_names_the_revision() {
    let agrees = |received: &Received| agreeing(received, "2027-01-01");
    // This backend has no handshake, and its description names another revision.
    let discovers = |received: &Received| match received.method() {
        "server/discover" => told(received, r#""result":{"supportedVersions":["2027-01-01"],"capabilities":{}}"#),
        "initialize" => described(received),
        _ => agreeing(received, ""),
    };
    for puppet in [Puppet::start(agrees).await, Puppet::start(discovers).await] {
        let site = puppet.site(&["a"]).await;
        let failed = async || site.status().await.backend.filter(|backend| backend.works == Some(false));
        let message = eventually("the probe has failed", failed).await.message.unwrap();
        assert!(message.contains("2027-01-01"), "{message}");
        for is_modern in [true, false] {
            let call = request(&site, ALICE, is_modern, "tools/call", json!({ "name": "a" }));
            assert_eq!(call.send().await.unwrap().status(), 503);
        }
        let methods = puppet.received().into_iter().map(|one| one.method().to_owned());
        let others = methods.filter(|method| !["server/discover", "initialize"].contains(&method.as_str()));
        assert_eq!(Vec::from_iter(others), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_every_revision_with_a_handshake_calls_a_backend_of_either_era() {
    for era in ERAS {
        let stage = Stage::http(Options::of(era)).await;
        stage.probed().await;
        for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
            let ask = async |method: &str, params: Value| {
                answer(stage.request(false, method, params).header("mcp-protocol-version", revision)).await
            };
            let handshake = json!({
                "protocolVersion": revision, "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
            });
            let initialized = ask("initialize", handshake).await;
            assert_eq!(initialized["result"]["protocolVersion"], revision, "{initialized}");
            let listed = ask("tools/list", json!({})).await;
            assert!(listed["result"]["tools"].is_array() && listed["result"]["ttlMs"].is_null(), "{listed}");
            let called = ask("tools/call", json!({ "name": "echo", "arguments": { "a": revision } })).await;
            assert_eq!(text(&called), json!({ "a": revision }).to_string(), "{era:?}");
            assert_eq!(called["result"]["resultType"], Value::Null, "{called}");
        }
        // The backend sees its own revision, and no revision of a client.
        let named = stage.received().await.into_iter().filter(|one| one.method() == "tools/call");
        let mut named = named.map(|one| one.headers["mcp-protocol-version"].clone());
        let expected = if era == Era::Modern { "2026-07-28" } else { "2025-11-25" };
        assert!(named.all(|named| named == expected), "{era:?}");
    }
}
