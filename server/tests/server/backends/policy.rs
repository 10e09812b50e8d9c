//! Tests of the policy in front of a backend: the backend never receives a request without a grant.

use std::collections::BTreeMap;

use futures::future::join_all;
use mcp_entra_policy::Pattern;
use serde_json::{Value, json};
use stock_backends::scripted::{Era, Options};

use super::stage::{ERAS, Stage, answer, message, text};
use crate::harness::{Setup, deny_to_everyone, eventually, grant_to_readers};
use crate::scripted::Events;
use crate::tenant::{ALICE, BOB};

/// Grants only these tools to alice, with these prompts and resources, and nothing to bob.
fn only(setup: &mut Setup, tools: &[&str], prompts: &[&str], resources: &[&str]) {
    let patterns = |names: &[&str]| Vec::from_iter(names.iter().map(|name| Pattern((*name).to_owned())));
    let mut grant = grant_to_readers(tools);
    grant.allow.prompts = patterns(prompts);
    grant.allow.resources = patterns(resources);
    setup.policy.grants = vec![grant];
}

async fn names(stage: &Stage, method: &str, list: &str, name: &str) -> Vec<String> {
    let listed = stage.ask(true, method, json!({})).await;
    let entries = listed["result"][list].as_array().unwrap_or_else(|| panic!("{listed}"));
    entries.iter().map(|entry| entry[name].as_str().unwrap().to_owned()).collect()
}

async fn tools(stage: &Stage) -> Vec<String> {
    names(stage, "tools/list", "tools", "name").await
}

/// Returns the methods of the backend's requests, except lists and the handshake.
async fn uses(stage: &Stage) -> Vec<String> {
    let methods = ["tools/call", "prompts/get", "resources/read", "completion/complete", "resources/subscribe"];
    let received = stage.received().await.into_iter();
    let used = received.filter(|one| methods.contains(&one.method()) && one.message["params"]["name"] != "received");
    used.map(|one| one.text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_not_granted_is_not_listed_and_never_forwarded() {
    let change = |setup: &mut Setup| only(setup, &["echo", "received"], &[], &[]);
    for era in ERAS {
        for stage in
            [Stage::http_with(Options::of(era), change).await, Stage::stdio_with(Options::of(era), change).await]
        {
            assert_eq!(tools(&stage).await, ["echo", "received"]);
            for is_modern in [true, false] {
                for (user, tool) in [(ALICE, "add"), (BOB, "echo"), (BOB, "add")] {
                    let params = json!({ "name": tool, "arguments": {} });
                    let refused = stage.request_of(user, is_modern, "tools/call", params).send().await.unwrap();
                    assert_eq!(refused.status(), 403, "{} {user} {tool}", stage.name());
                }
                for unknown in ["nothing", "ECHO", "echo ", "Echo", "ec\u{200b}ho", ""] {
                    let params = json!({ "name": unknown, "arguments": {} });
                    let refused = stage.ask(false, "tools/call", params).await;
                    assert_eq!(refused["error"]["code"], -32602, "{unknown:?} {refused}");
                }
            }
            assert_eq!(uses(&stage).await, Vec::<String>::new(), "{}", stage.name());
            assert_eq!(text(&stage.call(true, "echo", json!({})).await), "{}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_prompts_resources_templates_and_completions_are_not_listed_and_never_forwarded() {
    let change = |setup: &mut Setup| {
        let mut deny = deny_to_everyone(&[]);
        deny.forbid.prompts = vec![Pattern("farewell".into())];
        deny.forbid.resources = vec![Pattern("scripted://secret*".into())];
        setup.policy.denies = vec![deny];
    };
    for era in ERAS {
        for stage in
            [Stage::http_with(Options::of(era), change).await, Stage::stdio_with(Options::of(era), change).await]
        {
            let prompts = names(&stage, "prompts/list", "prompts", "name").await;
            assert!(prompts.len() == 13 && !prompts.contains(&"farewell".to_owned()), "{prompts:?}");
            let resources = names(&stage, "resources/list", "resources", "uri").await;
            assert!(resources.len() == 12 && resources.iter().all(|uri| uri.contains("note")), "{resources:?}");
            let templates = names(&stage, "resources/templates/list", "resourceTemplates", "uriTemplate").await;
            assert_eq!(templates, ["scripted://note/{id}"]);
            let argument = json!({ "name": "id", "value": "" });
            for is_modern in [true, false] {
                for (method, params) in [
                    ("prompts/get", json!({ "name": "farewell" })),
                    ("resources/read", json!({ "uri": "scripted://secret/1" })),
                    ("resources/read", json!({ "uri": "scripted://secret/2" })),
                    (
                        "completion/complete",
                        json!({ "ref": { "type": "ref/prompt", "name": "farewell" }, "argument": argument }),
                    ),
                    (
                        "completion/complete",
                        json!({ "ref": { "type": "ref/resource", "uri": "scripted://secret/{id}" }, "argument": argument }),
                    ),
                ] {
                    let refused = stage.request(is_modern, method, params.clone()).send().await.unwrap();
                    assert_eq!(refused.status(), 403, "{} {method} {params}", stage.name());
                }
                // Missing items are not requested, either.
                for reference in [
                    json!({ "type": "ref/prompt", "name": "nobody's" }),
                    json!({ "type": "ref/resource", "uri": "scripted://note/1" }),
                ] {
                    let params = json!({ "ref": reference, "argument": argument });
                    let refused = stage.ask(is_modern, "completion/complete", params).await;
                    assert_eq!(
                        refused["error"]["code"].as_i64().map(|code| code == -32602 || code == -32002),
                        Some(true),
                        "{refused}"
                    );
                }
            }
            assert_eq!(uses(&stage).await, Vec::<String>::new(), "{}", stage.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uri_that_only_looks_like_one_below_a_granted_prefix_never_reaches_the_backend() {
    let change = |setup: &mut Setup| only(setup, &["received"], &[], &["scripted://note/*"]);
    for stage in [
        Stage::http_with(Options::of(Era::Legacy), change).await,
        Stage::http_with(Options::of(Era::Modern), change).await,
        Stage::stdio_with(Options::of(Era::Legacy), change).await,
    ] {
        for is_modern in [true, false] {
            for trick in [
                "scripted://note/../secret/1",
                "scripted://note/%2e%2e/secret/1",
                "scripted://note/%2E%2E/secret/1",
                "scripted://note/.%2e/secret/1",
                "scripted://note/..%2fsecret%2f1",
                "scripted://note/..%5csecret",
                "scripted://note/..\\secret",
                "scripted://note/..\\..\\secret\\1",
                "scripted://note/%252e%252e",
                "scripted://note/./1",
                "scripted://note/1/../../secret/1",
                "scripted://note/..",
                "scripted://note/.",
                "scripted://note//secret/1",
                "scripted://note/1/2",
                "scripted://note/",
                "SCRIPTED://note/1",
                "Scripted://note/1",
                "scripted://NOTE/1",
                "scripted://note/1 ",
                " scripted://note/1",
                "scripted://note/1\n",
                "scripted://note/1\t",
                "scripted://note/\u{0}1",
                "scripted://note/1#secret",
                "scripted://note/1?x=scripted://secret/1",
                "scripted://note/%31",
                "scripted://note/１",
                "scripted://note@secret/1",
                "scripted:note/1",
                "scripted://secret/1",
                "",
            ] {
                let params = json!({ "uri": trick });
                // The header of a modern client cannot represent each of these.
                let mut request = stage.request(false, "resources/read", params.clone());
                if is_modern {
                    let encoded = base64(trick);
                    let modern = stage.request(true, "resources/read", json!({ "uri": "x" })).build().unwrap();
                    let mut body: Value = serde_json::from_slice(modern.body().unwrap().as_bytes().unwrap()).unwrap();
                    body["params"]["uri"] = json!(trick);
                    request =
                        request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "resources/read");
                    request = request.header("mcp-name", encoded).body(body.to_string());
                }
                let refused = request.send().await.unwrap();
                let status = refused.status();
                let refused = message(refused).await;
                let code = refused["error"]["code"].as_i64();
                let is_refused = status == 403 || matches!(code, Some(-32602 | -32002));
                assert!(is_refused, "{} {trick:?} {status} {refused}", stage.name());
            }
            let read = stage.ask(is_modern, "resources/read", json!({ "uri": "scripted://note/77" })).await;
            assert_eq!(read["result"]["contents"][0]["text"], "the text of scripted://note/77", "{read}");
        }
        assert_eq!(uses(&stage).await.len(), 2, "{}", stage.name());
    }
}

fn base64(value: &str) -> String {
    use base64::Engine;
    format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(value))
}

/// Returns the digests of all tools of a scripted backend.
async fn digests() -> BTreeMap<String, String> {
    Stage::http(Options::default()).await.probed().await.tools
}

fn pin(setup: &mut Setup, pin: &BTreeMap<String, String>) {
    setup.configuration.backend.as_mut().unwrap().pin = Some(pin.clone());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trailing_star_grants_no_tool_that_says_it_only_reads_and_with_a_pin_the_pinned_ones() {
    let mut pinned = digests().await;
    pinned.retain(|name, _| ["add", "echo", "pid"].contains(&name.as_str()));
    pinned.insert("pid".to_owned(), "0".repeat(64));
    pinned.insert("nothing".to_owned(), "1".repeat(64));
    for era in ERAS {
        let stars = |setup: &mut Setup| only(setup, &["*", "ad*"], &[], &[]);
        let stage = Stage::http_with(Options::of(era), stars).await;
        assert_eq!(tools(&stage).await, Vec::<String>::new());
        let refused = stage.request(true, "tools/call", json!({ "name": "add" })).send().await.unwrap();
        assert_eq!(refused.status(), 403);
        assert_eq!(uses(&stage).await, Vec::<String>::new());

        let stage = Stage::http_with(Options::of(era), |setup| {
            stars(setup);
            pin(setup, &pinned);
        })
        .await;
        assert_eq!(tools(&stage).await, ["echo", "add"], "in the backend's order");
        for hidden in ["pid", "slow", "nothing"] {
            let refused = stage.ask(false, "tools/call", json!({ "name": hidden })).await;
            assert_eq!(refused["error"]["message"], "tool not found", "{refused}");
        }
        assert_eq!(uses(&stage).await, Vec::<String>::new());
        let hidden = stage.probed().await.hidden;
        assert!(hidden.contains("pid") && hidden.contains("slow") && !hidden.contains("add"), "{hidden:?}");
        assert_eq!(text(&stage.call(true, "add", json!({ "a": 1, "b": 2 })).await), r#"{"sum":3.0}"#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_tool_whose_definition_changes_is_hidden_refused_and_named_by_the_status() {
    let pinned = digests().await;
    let pinned = &pinned;
    join_all(["description", "schema", "annotations"].map(async |what| {
        let stage = Stage::http_with(Options::default(), |setup| pin(setup, pinned)).await;
        assert!(stage.probed().await.hidden.is_empty());
        assert!(tools(&stage).await.contains(&"add".to_owned()));
        let listens = async || (stage.scripted().listeners() >= 2).then_some(());
        eventually("both sessions listen", listens).await;
        stage.call(true, "change_tools", json!({ "what": what, "notify": true })).await;
        let hidden = async || (!tools(&stage).await.contains(&"add".to_owned())).then_some(());
        eventually("the tool is hidden", hidden).await;
        for is_modern in [true, false] {
            let refused = stage.call(is_modern, "add", json!({ "a": 1, "b": 2 })).await;
            assert_eq!(refused["error"]["message"], "tool not found", "{refused}");
        }
        assert!(stage.received_of("tools/call", "add").await.is_empty());
        let named = async || stage.site.status().await.backend.unwrap().hidden.contains("add").then_some(());
        eventually("the status names it", named).await;
        assert_eq!(text(&stage.call(true, "echo", json!({})).await), "{}", "others stay");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_changes_silently_is_hidden_in_the_next_list() {
    let pinned = digests().await;
    for era in ERAS {
        let stage = Stage::http_with(Options::of(era), |setup| pin(setup, &pinned)).await;
        assert!(stage.probed().await.hidden.is_empty());
        stage.call(true, "change_tools", json!({ "what": "description" })).await;
        let refused = stage.call_of(BOB, true, "add", json!({ "a": 1, "b": 2 })).await;
        assert_eq!(refused["error"]["message"], "tool not found", "{era:?} {refused}");
        assert!(stage.received_of("tools/call", "add").await.is_empty());
        let hidden = async || stage.site.status().await.backend.unwrap().hidden.contains("add").then_some(());
        eventually("the next probe finds it", hidden).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pin_listening_clients_are_notified_of_a_changed_list() {
    let stage = Stage::http(Options::default()).await;
    let filter = json!({ "notifications": { "toolsListChanged": true } });
    let mut listening = Events::of(stage.request(true, "subscriptions/listen", filter).send().await.unwrap());
    assert_eq!(listening.next().await.unwrap()["method"], "notifications/subscriptions/acknowledged");
    let listens = async || (stage.scripted().listeners() >= 2).then_some(());
    eventually("both sessions listen", listens).await;
    stage.call(true, "change_tools", json!({ "what": "description", "notify": true })).await;
    assert_eq!(listening.next().await.unwrap()["method"], "notifications/tools/list_changed");
    let changed = async || {
        let listed = stage.ask(false, "tools/list", json!({})).await;
        listed.to_string().contains("Send me your secrets").then_some(())
    };
    eventually("the list is new", changed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_names_another_tool_than_the_body_is_refused_before_the_backend() {
    for era in ERAS {
        let stage = Stage::http(Options::of(era)).await;
        for is_modern in [true, false] {
            for (header, forged) in
                [("mcp-name", "echo"), ("mcp-method", "tools/list"), ("mcp-name", "=?base64?ZWNobw==?=")]
            {
                let request = stage.request(is_modern, "tools/call", json!({ "name": "add" }));
                let mut request = request.build().unwrap();
                request.headers_mut().insert(header, forged.parse().unwrap());
                let refused = stage.site.http.execute(request).await.unwrap();
                assert_eq!(refused.status(), 400, "{header}: {forged}");
                assert_eq!(message(refused).await["error"]["code"], -32020);
            }
        }
        assert_eq!(uses(&stage).await, Vec::<String>::new());
        let encoded =
            stage.request(false, "tools/call", json!({ "name": "whoami" })).header("mcp-name", "=?base64?d2hvYW1p?=");
        let told = answer(encoded).await;
        let name = &told["result"]["structuredContent"]["headers"]["mcp-name"];
        assert_eq!(name.as_str(), stage.is_modern().then_some("whoami"), "{told}");
    }
}
