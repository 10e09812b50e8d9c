//! Tests of messages between clients and backends of either era: unchanged, changed, and left out.

use axum::http::Response;
use futures::future::join_all;
use serde_json::{Value, json};
use stock_backends::scripted::{Era, Options};

use super::puppet::{Puppet, described, told};
use super::stage::{Behind, ERAS, Received, Stage, answer, failure, message, request, text};
use crate::harness::Site;
use crate::scripted::Events;
use crate::tenant::{ALICE, BOB};

/// JSON whose members have an order, and whose numbers have more digits than a float.
const WRITTEN: &str = r#"{"z":1.10,"a":12345678901234567890123,"m":{"y":1e2,"x":[-0.0,"\u00e9"]}}"#;

const PROTOCOL: &str = "io.modelcontextprotocol/";

/// Returns the answer of a backend that writes [`WRITTEN`] wherever it can.
fn writes(received: &Received) -> Response<String> {
    let entry = format!(
        r#"{{"x-order":{WRITTEN},"name":"raw","execution":{{"taskSupport":"required"}},"inputSchema":{{"type":"object","default":{WRITTEN}}}}}"#
    );
    let resource = r#"{"name":"r","uri":"raw://r/1"}"#;
    match received.method() {
        "tools/list" => told(received, &format!(r#""result":{{"tools":[{entry}]}}"#)),
        "prompts/list" => told(received, r#""result":{"prompts":[]}"#),
        "resources/list" => told(received, &format!(r#""result":{{"resources":[{resource}]}}"#)),
        "tools/call" => told(
            received,
            &format!(r#""result":{{"structuredContent":{WRITTEN},"content":[],"resultType":"complete"}}"#),
        ),
        "resources/read" => told(
            received,
            r#""result":{"contents":[{"uri":"raw://r/1","text":"r"}],"ttlMs":60000,"cacheScope":"public"}"#,
        ),
        _ => described(received),
    }
}

async fn body(site: &Site, is_modern: bool, method: &str, params: Value) -> String {
    request(site, ALICE, is_modern, method, params).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_results_and_definitions_keep_the_order_of_members_and_all_digits() {
    let puppet = Puppet::start(writes).await;
    let site = puppet.site(&["raw"]).await;
    for is_modern in [true, false] {
        let listed = body(&site, is_modern, "tools/list", json!({})).await;
        assert!(listed.contains(&format!(r#"{{"x-order":{WRITTEN},"name":"raw","inputSchema":"#)), "{listed}");
        assert!(listed.contains(&format!(r#""default":{WRITTEN}"#)), "{listed}");
        assert!(!listed.contains("execution"), "tasks are not offered: {listed}");
        let request = request(&site, ALICE, is_modern, "tools/call", json!({ "name": "raw", "arguments": "HERE" }));
        let sent = request.try_clone().unwrap().build().unwrap();
        let sent = std::str::from_utf8(sent.body().unwrap().as_bytes().unwrap()).unwrap().replace("\"HERE\"", WRITTEN);
        let called = request.body(sent).send().await.unwrap().text().await.unwrap();
        assert!(called.contains(&format!(r#""structuredContent":{WRITTEN},"content":[]"#)), "{called}");
    }
    let calls = puppet.received().into_iter().filter(|one| one.method() == "tools/call").map(|one| one.text);
    let calls = Vec::from_iter(calls);
    assert_eq!(calls.len(), 2);
    calls.iter().for_each(|call| assert!(call.contains(&format!(r#""arguments":{WRITTEN}"#)), "{call}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_envelope_of_a_result_is_that_of_the_clients_revision_and_private() {
    let puppet = Puppet::start(writes).await;
    let site = puppet.site(&["raw"]).await;
    for (method, params, is_cacheable) in [
        ("tools/list", json!({}), true),
        ("resources/list", json!({}), true),
        ("resources/templates/list", json!({}), true),
        ("resources/read", json!({ "uri": "raw://r/1" }), true),
        ("tools/call", json!({ "name": "raw" }), false),
    ] {
        let modern = answer(request(&site, ALICE, true, method, params.clone())).await;
        let result = &modern["result"];
        let envelope = [&result["resultType"], &result["ttlMs"], &result["cacheScope"]];
        let expected = if is_cacheable { json!(["complete", 0, "private"]) } else { json!(["complete", null, null]) };
        assert_eq!(json!(envelope), expected, "{method} {modern}");
        let name = &result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"];
        assert_eq!(*name, "mcp-entra-server", "{method} {modern}");
        let legacy = answer(request(&site, ALICE, false, method, params)).await;
        for member in ["resultType", "ttlMs", "cacheScope", "_meta"] {
            assert!(legacy["result"].is_object() && legacy["result"].get(member).is_none(), "{method} {legacy}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_headers_and_meta_do_not_reach_the_backend() {
    const ALLOWED: [&str; 10] = [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "user-agent",
    ];
    let forged = json!({
        "dev.mcp-entra/assertion": "FORGED", "dev.mcp-entra/else": "FORGED", "com.example/x": "FORGED",
        "traceparent": "FORGED", "io.modelcontextprotocol/clientInfo": { "name": "FORGED", "version": "1" },
        "io.modelcontextprotocol/related-task": "FORGED", "io.modelcontextprotocol/subscriptionId": "FORGED",
    });
    for stage in Stage::each().await {
        for is_modern in [true, false] {
            let params = json!({ "name": "whoami", "arguments": {}, "_meta": forged.clone() });
            let mut request = stage.request(is_modern, "tools/call", params);
            for name in [
                "cookie",
                "mcp-session-id",
                "mcp-entra-assertion",
                "x-forwarded-for",
                "x-anything",
                "mcp-param-else",
                "traceparent",
                "last-event-id",
                "x-ms-client-principal",
                "proxy-authorization",
                "forwarded",
            ] {
                request = request.header(name, "FORGED");
            }
            let answer = answer(request).await;
            let name = format!("{} {is_modern} {answer}", stage.name());
            let told = &answer["result"]["structuredContent"];
            assert!(told.is_object() && !told.to_string().contains("FORGED"), "{name}");
            let meta = told["meta"].as_object().cloned().unwrap_or_default();
            let expected: &[_] = match stage.is_modern() {
                true => &["clientCapabilities", "clientInfo", "protocolVersion"],
                false => &[],
            };
            // Clients before 2026-07-28 get log messages, so this server adds a progress token to the request.
            let keys = meta.keys().map(|key| key.trim_start_matches(PROTOCOL)).filter(|key| *key != "progressToken");
            let keys = Vec::from_iter(keys);
            assert_eq!(keys, expected, "{name}");
            let headers = told["headers"].as_object().unwrap();
            let foreign = headers.keys().find(|header| !ALLOWED.contains(&header.as_str()));
            assert_eq!(foreign, None, "{name}");
            if let Behind::Http(scripted) = &stage.behind {
                assert_eq!(headers["host"], scripted.address.to_string(), "{name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_reaches_only_the_caller_that_asked_for_it_with_its_own_token() {
    let stages = Stage::each().await;
    join_all(stages.iter().map(async |stage| {
        for is_modern in [true, false] {
            let signal = format!("go {is_modern}");
            let slow = |token: Value, user: &str| {
                let arguments = json!({ "signal": signal, "progress_ms": 20 });
                let meta = if token.is_null() { json!({}) } else { json!({ "progressToken": token }) };
                let params = json!({ "name": "slow", "arguments": arguments, "_meta": meta });
                stage.request_of(user, is_modern, "tools/call", params)
            };
            let (first, second) = (json!("mine"), json!(1));
            let (one, two) = tokio::join!(slow(first.clone(), ALICE).send(), slow(second.clone(), ALICE).send());
            let (mut one, mut two) = (Events::of(one.unwrap()), Events::of(two.unwrap()));
            let (begun_one, begun_two) = (one.next().await.unwrap(), two.next().await.unwrap());
            let without = slow(Value::Null, ALICE);
            let (silent, _) =
                tokio::join!(without.send(), stage.call(is_modern, "release", json!({ "signal": signal })));
            let mut all = [one.rest().await, two.rest().await];
            all[0].push(begun_one);
            all[1].push(begun_two);
            for (messages, token) in all.iter().zip([&first, &second]) {
                let progress = messages.iter().filter(|message| message["method"] == "notifications/progress");
                let tokens = Vec::from_iter(progress.map(|message| &message["params"]["progressToken"]));
                assert!(!tokens.is_empty() && tokens.iter().all(|told| *told == token), "{} {tokens:?}", stage.name());
            }
            assert_eq!(silent.unwrap().headers()["content-type"], "application/json", "{}", stage.name());
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_under_a_token_that_another_request_has_is_dropped() {
    for stage in Stage::each().await {
        let slow = json!({ "name": "slow", "arguments": { "signal": "go", "progress_ms": 20 }, "_meta": { "progressToken": "b" } });
        let mut bobs = Events::of(stage.request_of(BOB, true, "tools/call", slow).send().await.unwrap());
        bobs.next().await.unwrap();
        let tokens = Vec::from_iter(0..40);
        let sent = stage.call(true, "foreign_progress", json!({ "tokens": tokens })).await;
        assert_eq!(text(&sent), "sent", "{}", stage.name());
        stage.call_of(BOB, true, "release", json!({ "signal": "go" })).await;
        let rest = bobs.rest().await;
        assert!(!json!(rest).to_string().contains("not for you"), "{} {rest:?}", stage.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_messages_of_a_request_over_http_reach_its_client_at_the_requested_level() {
    for era in ERAS {
        let stage = Stage::http(Options::of(era)).await;
        stage.probed().await;
        for (is_modern, level, expected) in
            [(false, None, 3), (true, Some("info"), 3), (true, Some("error"), 0), (true, None, 0)]
        {
            let meta = level.map_or(json!({}), |level| json!({ "io.modelcontextprotocol/logLevel": level }));
            let params = json!({ "name": "flood_notifications", "arguments": { "count": 3 }, "_meta": meta });
            let response = stage.request(is_modern, "tools/call", params).send().await.unwrap();
            let told = response.text().await.unwrap();
            let count = told.matches("notifications/message").count();
            assert_eq!(count, expected, "{era:?} {is_modern} {level:?} {told}");
            assert!(told.contains("flooded"), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_only_requests_its_state_gets_it_without_the_client() {
    for stage in [Stage::http(Options::of(Era::Modern)).await, Stage::stdio(Options::of(Era::Modern)).await] {
        for is_modern in [true, false] {
            let done = stage.call(is_modern, "needs_state", json!({ "rounds": 3 })).await;
            assert_eq!(text(&done), "done in round 3", "{done}");
            let endless = stage.call(is_modern, "needs_state", json!({ "rounds": 1000 })).await;
            assert!(failure(&endless).contains("again and again"), "{endless}");
        }
        assert!(stage.received_of("tools/call", "needs_state").await.len() < 30);
    }
}

/// Returns a call of a tool that needs a name, by a client that can ask for one.
fn asking(stage: &Stage, user: &str, arguments: &Value, input: &Value) -> reqwest::RequestBuilder {
    let mut params = json!({ "name": "needs_input", "arguments": arguments });
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "elicitation": {} });
    for (name, value) in input.as_object().unwrap() {
        params[name] = value.clone();
    }
    stage.request_of(user, true, "tools/call", params)
}

#[tokio::test(flavor = "multi_thread")]
async fn capable_modern_clients_are_asked_for_input_and_its_state_is_sealed_to_caller_and_call() {
    for stage in [Stage::http(Options::of(Era::Modern)).await, Stage::stdio(Options::of(Era::Modern)).await] {
        let arguments = json!({ "a": 1 });
        let asked = answer(asking(&stage, ALICE, &arguments, &json!({}))).await;
        assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
        assert_eq!(asked["result"]["inputRequests"]["name"]["method"], "elicitation/create", "{asked}");
        let state = asked["result"]["requestState"].as_str().unwrap();
        assert!(!state.contains("round"), "{asked}");
        let given = json!({ "name": { "action": "accept", "content": { "name": "Ada" } } });
        let input = json!({ "requestState": state, "inputResponses": given });
        let done = answer(asking(&stage, ALICE, &arguments, &input)).await;
        assert!(text(&done).contains("Ada"), "{done}");

        let mut other_tool = json!({ "name": "needs_state", "arguments": arguments });
        other_tool["requestState"] = json!(state);
        let forged = json!({ "requestState": "round 1", "inputResponses": given });
        let before = stage.received().await.len();
        for stolen in [
            asking(&stage, BOB, &arguments, &input),
            asking(&stage, ALICE, &json!({ "a": 2 }), &input),
            asking(&stage, ALICE, &arguments, &forged),
            stage.request(true, "tools/call", other_tool),
        ] {
            let refused = answer(stolen).await;
            assert_eq!(refused["error"]["code"], -32602, "{} {refused}", stage.name());
        }
        let after = stage.received().await;
        let calls = after
            .get(before..)
            .unwrap()
            .iter()
            .filter(|one| one.method() == "tools/call" && one.message["params"]["name"] != "received");
        assert_eq!(calls.count(), 0, "{}", stage.name());

        let cannot = stage.call(true, "needs_input", json!({})).await;
        assert_eq!(cannot["error"]["code"], -32021, "{cannot}");
        assert_eq!(cannot["error"]["data"]["requiredCapabilities"], json!({ "elicitation": {} }), "{cannot}");
        let legacy = stage.call(false, "needs_input", json!({})).await;
        assert!(failure(&legacy).contains("2026-07-28"), "{legacy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_backend_sees_the_capabilities_of_a_modern_client_and_none_of_another() {
    for stage in [Stage::http(Options::of(Era::Modern)).await, Stage::stdio(Options::of(Era::Modern)).await] {
        let declared = json!({ "elicitation": { "url": {} }, "sampling": {}, "x": { "b": 1, "a": 2 } });
        for (is_modern, expected) in [(true, declared.clone()), (false, json!({}))] {
            let mut params = json!({ "name": "whoami", "arguments": {} });
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = declared.clone();
            let answer = answer(stage.request(is_modern, "tools/call", params)).await;
            let meta = &answer["result"]["structuredContent"]["meta"];
            assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], expected, "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_repeat_arguments_are_checked_and_derived_anew() {
    let stage = Stage::http(Options::of(Era::Modern)).await;
    let params = json!({ "name": "regional", "arguments": { "region": "Malmö" } });
    let legacy = stage.request(false, "tools/call", params.clone()).header("mcp-param-region", "Lund");
    assert_eq!(text(&answer(legacy).await), "Malmö");
    let modern = stage.request(true, "tools/call", params.clone()).header("mcp-param-region", "=?base64?TWFsbcO2?=");
    assert_eq!(text(&answer(modern).await), "Malmö");
    for forged in [Some("Lund"), Some("Malm"), None] {
        let mut request = stage.request(true, "tools/call", params.clone());
        if let Some(forged) = forged {
            request = request.header("mcp-param-region", forged);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(message(response).await["error"]["code"], -32020);
    }
    assert_eq!(stage.received_of("tools/call", "regional").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_that_the_backend_lacks_is_named_to_every_client() {
    let puppet = Puppet::start(|received| {
        let data = json!({ "requiredCapabilities": { "sampling": {} } });
        match received.method() {
            "tools/list" => told(received, r#""result":{"tools":[{"name":"lacks","inputSchema":{}}]}"#),
            "prompts/list" => told(received, r#""result":{"prompts":[{"name":"p"}]}"#),
            "resources/list" => told(received, r#""result":{"resources":[]}"#),
            "tools/call" | "prompts/get" => {
                let members = format!(r#""error":{{"code":-32021,"message":"no","data":{data}}}"#);
                let mut response = told(received, &members);
                *response.status_mut() = axum::http::StatusCode::BAD_REQUEST;
                response
            }
            _ => described(received),
        }
    })
    .await;
    let site = puppet.site(&["lacks"]).await;
    for (method, name) in [("tools/call", "lacks"), ("prompts/get", "p")] {
        let ask = |is_modern| request(&site, ALICE, is_modern, method, json!({ "name": name }));
        let response = ask(true).send().await.unwrap();
        assert_eq!(response.status(), 400);
        let modern = message(response).await;
        assert_eq!(modern["error"]["code"], -32021, "{modern}");
        assert_eq!(modern["error"]["data"]["requiredCapabilities"], json!({ "sampling": {} }), "{modern}");
        let legacy = answer(ask(false)).await;
        let told = match method {
            "tools/call" => failure(&legacy),
            _ => legacy["error"]["message"].as_str().unwrap(),
        };
        assert!(told.contains("sampling") && told.contains("2026-07-28"), "{legacy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_messages_reach_a_modern_client_at_its_level_and_the_backend_gets_the_level() {
    let stage = Stage::http(Options::of(Era::Modern)).await;
    let all = ["debug", "info", "warning", "error"];
    for (asked, expected) in [(Some("warning"), &all[2..]), (Some("debug"), &all), (None, &[])] {
        let mut params = json!({ "name": "logs", "arguments": {} });
        if let Some(level) = asked {
            params["_meta"][format!("{PROTOCOL}logLevel")] = json!(level);
        }
        let told = stage.request(true, "tools/call", params).send().await.unwrap().text().await.unwrap();
        let levels = all.iter().filter(|level| told.contains(&format!(r#""level":"{level}""#)));
        assert_eq!(Vec::from_iter(levels.copied()), expected, "{asked:?} {told}");
        let received = stage.received_of("tools/call", "logs").await.pop().unwrap();
        let sent = &received.message["params"]["_meta"][format!("{PROTOCOL}logLevel")];
        assert_eq!(sent.as_str(), asked, "{received:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn error_codes_of_a_backend_follow_the_clients_revision_and_never_equal_ours() {
    let puppet = Puppet::start(|received| {
        let code = match received.method() {
            "tools/list" => return told(received, r#""result":{"tools":[{"name":"fails","inputSchema":{}}]}"#),
            "resources/list" => return told(received, r#""result":{"resources":[{"uri":"raw://r/1","name":"r"}]}"#),
            "prompts/list" => return told(received, r#""result":{"prompts":[{"name":"p"}]}"#),
            "tools/call" => received.message["params"]["arguments"]["code"].clone(),
            "prompts/get" => json!(-32602),
            "resources/read" => json!(-32002),
            _ => return described(received),
        };
        told(received, &format!(r#""error":{{"code":{code},"message":"it said so","data":{{"b":1}}}}"#))
    })
    .await;
    let site = puppet.site(&["fails"]).await;
    for is_modern in [true, false] {
        for (code, expected) in [
            (-32700, -32603),
            (-32601, -32603),
            (-32020, -32603),
            (-32022, -32603),
            (-32000, -32603),
            (-32602, -32602),
            (7, 7),
            (-31999, -31999),
        ] {
            let params = json!({ "name": "fails", "arguments": { "code": code } });
            let response = request(&site, ALICE, is_modern, "tools/call", params).send().await.unwrap();
            assert_eq!(response.status(), 200, "{code}");
            let expected = json!({ "code": expected, "message": "it said so", "data": { "b": 1 } });
            assert_eq!(message(response).await["error"], expected, "{code}");
        }
        let prompt = answer(request(&site, ALICE, is_modern, "prompts/get", json!({ "name": "p" }))).await;
        assert_eq!(prompt["error"]["code"], -32602, "{prompt}");
        let resource = answer(request(&site, ALICE, is_modern, "resources/read", json!({ "uri": "raw://r/1" }))).await;
        assert_eq!(resource["error"]["code"], if is_modern { -32602 } else { -32002 }, "{resource}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_without_templates_has_resources() {
    let puppet = Puppet::start(writes).await;
    let site = puppet.site(&[]).await;
    for is_modern in [true, false] {
        for (method, member, count) in
            [("resources/list", "resources", 1), ("resources/templates/list", "resourceTemplates", 0)]
        {
            let listed = answer(request(&site, ALICE, is_modern, method, json!({}))).await;
            assert_eq!(listed["result"][member].as_array().map(Vec::len), Some(count), "{listed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_of_prompts_and_templates_are_completed() {
    for stage in Stage::each().await {
        for is_modern in [true, false] {
            for (reference, name, value, expected) in [
                (json!({ "type": "ref/prompt", "name": "greeting" }), "name", "A", json!(["Ada", "Alan"])),
                (json!({ "type": "ref/resource", "uri": "scripted://note/{id}" }), "id", "1", json!(["1", "10"])),
            ] {
                let params = json!({ "ref": reference, "argument": { "name": name, "value": value } });
                let completed = stage.ask(is_modern, "completion/complete", params).await;
                assert_eq!(completed["result"]["completion"]["values"], expected, "{} {completed}", stage.name());
            }
        }
    }
}
