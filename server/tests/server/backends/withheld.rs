//! Tests of parts of a backend's answers that no client gets: instructions, and tasks.

use serde_json::json;
use stock_backends::scripted::{Era, Options};

use super::puppet::{Puppet, described, status, told};
use super::stage::{ERAS, Received, Stage, answer, failure, request};
use crate::harness::eventually;
use crate::tenant::ALICE;

/// Instructions of every server with a backend.
const INSTRUCTIONS: &str = "Each user sees the tools, prompts and resources that a role grants.";

#[tokio::test(flavor = "multi_thread")]
async fn instructions_of_a_backend_which_may_name_hidden_tools_reach_no_client() {
    for era in ERAS {
        let puppet = Puppet::start(move |received: &Received| {
            let mut result = json!({ "capabilities": { "tools": {} }, "instructions": "Use the secret tool." });
            match (received.method(), era) {
                ("server/discover", Era::Modern) => result["supportedVersions"] = json!(["2026-07-28"]),
                ("server/discover", Era::Legacy) => return status(400),
                ("initialize", Era::Legacy) => result["protocolVersion"] = json!("2025-11-25"),
                ("tools/list", _) => {
                    return told(received, r#""result":{"tools":[{"name":"secret","inputSchema":{}}]}"#);
                }
                _ => return described(received),
            }
            told(received, &format!(r#""result":{result}"#))
        })
        .await;
        let site = puppet.site(&[]).await;
        eventually("the probe has ended", async || {
            site.status().await.backend.filter(|backend| !backend.tools.is_empty())
        })
        .await;
        let handshake = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        });
        for (is_modern, method, params) in [(true, "server/discover", json!({})), (false, "initialize", handshake)] {
            let description = answer(request(&site, ALICE, is_modern, method, params)).await;
            assert_eq!(description["result"]["instructions"], INSTRUCTIONS, "{era:?} {description}");
            assert!(!description.to_string().contains("secret"), "{era:?} {description}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_or_another_kind_of_result_is_refused_by_its_name() {
    let puppet = Puppet::start(|received| {
        let task = json!({ "taskId": "t-1", "status": "working", "createdAt": "2026-12-01T12:00:00Z", "ttl": 60_000 });
        let kind = match received.method() {
            "tools/list" => return told(received, r#""result":{"tools":[{"name":"works","inputSchema":{}}]}"#),
            "prompts/list" => return told(received, r#""result":{"prompts":[{"name":"p"}]}"#),
            "resources/list" => return told(received, r#""result":{"resources":[]}"#),
            "tools/call" => received.message["params"]["arguments"]["kind"].clone(),
            "prompts/get" => json!("task"),
            _ => return described(received),
        };
        let result = json!({ "resultType": kind, "task": task, "content": [], "messages": [] });
        told(received, &format!(r#""result":{result}"#))
    })
    .await;
    let site = puppet.site(&["works"]).await;
    for is_modern in [true, false] {
        for (kind, expected) in
            [("task", "a task, which this server does not support"), ("tomorrow", "a kind of result")]
        {
            let params = json!({ "name": "works", "arguments": { "kind": kind } });
            let refused = answer(request(&site, ALICE, is_modern, "tools/call", params)).await;
            assert!(failure(&refused).contains(expected), "{refused}");
            assert!(!refused.to_string().contains("t-1"), "{refused}");
        }
        let prompt = answer(request(&site, ALICE, is_modern, "prompts/get", json!({ "name": "p" }))).await;
        assert_eq!(prompt["error"]["code"], -32603, "{prompt}");
        assert!(prompt["error"]["message"].as_str().unwrap().contains("a task"), "{prompt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_about_tasks_do_not_reach_a_backend() {
    for stage in [Stage::http(Options::of(Era::Legacy)).await, Stage::http(Options::of(Era::Modern)).await] {
        for is_modern in [true, false] {
            for method in ["tasks/get", "tasks/result", "tasks/cancel", "tasks/list"] {
                let refused = stage.ask(is_modern, method, json!({ "taskId": "t-1" })).await;
                assert_eq!(refused["error"]["code"], -32601, "{method} {refused}");
            }
            let params = json!({ "name": "echo", "arguments": {}, "task": { "ttl": 60_000 } });
            stage.ask(is_modern, "tools/call", params).await;
        }
        let received = stage.received().await;
        assert!(received.iter().all(|one| !one.method().starts_with("tasks/")), "{}", stage.name());
        assert!(received.iter().all(|one| one.message["params"]["task"].is_null()), "{}", stage.name());
    }
}
