//! Tests of valid messages, and of the answers in both eras of the protocol.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{Setup, Site};
use crate::tenant::ALICE;

async fn send(site: &Site, body: impl Into<reqwest::Body>) -> Response {
    site.request().bearer_auth(site.setup.tenant.token(ALICE)).body(body).send().await.unwrap()
}

/// The HTTP status, the code of the JSON-RPC error, and the reason in the audit line.
async fn refusal(site: &Site, body: &str) -> (u16, i64, String) {
    let response = send(site, body.to_owned()).await;
    let line = site.audit_of(&response).await;
    let status = response.status().as_u16();
    let answer: Value = response.json().await.unwrap();
    (status, answer["error"]["code"].as_i64().unwrap(), line["reason"].as_str().unwrap().to_owned())
}

/// A request of clients of 2026-07-28.
fn modern(method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": params })
}

async fn send_modern(site: &Site, message: &Value, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut request =
        site.request().bearer_auth(site.setup.tenant.token(ALICE)).header("mcp-protocol-version", "2026-07-28");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.body(message.to_string()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn everything_except_one_known_message_is_refused() {
    let site = Setup::new().start().await;
    let ping = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
    assert_eq!(refusal(&site, "{").await, (400, -32700, "invalid_json".into()));
    assert_eq!(refusal(&site, &format!("[{ping}]")).await, (400, -32600, "batch".into()));
    assert_eq!(refusal(&site, &format!("{ping}{ping}")).await, (400, -32700, "invalid_json".into()));
    let twice =
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"nothing","name":"get_user_details"}}"#;
    assert_eq!(refusal(&site, twice).await, (400, -32700, "invalid_json".into()));
    let answer = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
    assert_eq!(refusal(&site, answer).await, (400, -32600, "invalid_message".into()));
    let nameless = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}"#;
    assert_eq!(refusal(&site, nameless).await, (400, -32602, "invalid_message".into()));
}

#[tokio::test]
async fn params_that_do_not_fit_a_method_are_refused_in_both_eras() {
    let site = Setup::new().start().await;
    let arguments = json!({ "name": "get_user_details", "arguments": [1] });
    let legacy = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": arguments });
    for call in [legacy, modern("tools/call", arguments)] {
        assert_eq!(refusal(&site, &call.to_string()).await, (400, -32602, "invalid_message".into()), "{call}");
    }
    // Fitting arguments are not refused, and neither are absent ones.
    for params in [json!({ "name": "get_user_details", "arguments": {} }), json!({ "name": "get_user_details" })] {
        let response = site.rpc(&site.setup.tenant.token(ALICE), "tools/call", params).await;
        assert_eq!(response.json::<Value>().await.unwrap()["result"]["isError"], json!(false));
    }
}

#[tokio::test]
async fn an_unknown_notification_is_accepted_dropped_and_recorded() {
    let site = Setup::new().start().await;
    for unknown in ["notifications/of/tomorrow", "$/progress"] {
        let response = send(&site, json!({ "jsonrpc": "2.0", "method": unknown }).to_string()).await;
        assert_eq!(response.status(), 202, "{unknown}");
        let line = site.audit_of(&response).await;
        assert_eq!((&line["method"], &line["reason"]), (&json!("notifications/*"), &json!("unknown_notification")));
        assert_eq!(response.bytes().await.unwrap().len(), 0);
    }
    let call = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"get_user_details"}}"#;
    assert_eq!(refusal(&site, call).await, (400, -32600, "invalid_message".into()));
    assert!(site.setup.tenant.requests().iter().all(|request| request.host != entra_emulator::Host::Graph));
}

#[tokio::test]
async fn a_handshake_is_answered_by_its_body_with_any_headers() {
    let site = Setup::new().start().await;
    let mut params = json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
    });
    let initialize = |params: &Value, header: &str| {
        let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "initialize", "params": params });
        let request = site.request().bearer_auth(site.setup.tenant.token(ALICE));
        request.header("mcp-protocol-version", header).body(message.to_string()).send()
    };
    for header in ["2025-11-25", "2026-07-28", "1999-01-01"] {
        let response = initialize(&params, header).await.unwrap();
        assert_eq!(response.status(), 200, "{header}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["result"]["protocolVersion"], "2025-06-18", "{header}: {answer}");
    }
    params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    let response = initialize(&params, "2026-07-28").await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], -32601);
}

#[tokio::test]
async fn an_unknown_method_is_refused_in_the_way_that_the_clients_era_expects() {
    let site = Setup::new().start().await;
    let unknown = r#"{"jsonrpc":"2.0","id":7,"method":"tools/destroy"}"#;
    assert_eq!(refusal(&site, unknown).await, (200, -32601, "unknown_method".into()));
    let unknown = modern("tools/destroy", json!({})).to_string();
    assert_eq!(refusal(&site, &unknown).await, (404, -32601, "unknown_method".into()));
}

#[tokio::test]
async fn a_body_above_128_kibibytes_is_refused_with_or_without_a_declared_length() {
    let site = Setup::new().start().await;
    let body =
        |size: usize| format!(r#"{{"jsonrpc":"2.0","id":7,"method":"ping","params":{{"x":"{}"}}}}"#, "x".repeat(size));
    assert_eq!(send(&site, body(127 * 1024)).await.status(), 200);
    let response = send(&site, body(128 * 1024)).await;
    assert_eq!(response.status(), 413);
    assert_eq!(site.audit_of(&response).await["reason"], "body_too_large");

    // A mapped body does not know its length, so it is sent in chunks.
    let stream = reqwest::Body::wrap(Full::new(Bytes::from(body(128 * 1024))).map_frame(|frame| frame));
    assert_eq!(send(&site, stream).await.status(), 413);
}

#[tokio::test]
async fn a_call_that_grows_when_it_is_serialised_again_is_executed() {
    let site = Setup::new().start().await;
    let numbers = vec!["1e15"; 9_900].join(",");
    let call = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"get_user_details","_meta":{{"x":[{numbers}]}}}}}}"#
    );
    let response = send(&site, call).await;
    assert_eq!((response.status().as_u16(), &site.audit_of(&response).await["reason"]), (200, &json!("granted")));
    assert_eq!(response.json::<Value>().await.unwrap()["result"]["isError"], json!(false));
}

#[tokio::test]
async fn a_call_that_rmcp_would_read_differently_is_refused_and_not_recorded_as_granted() {
    let site = Setup::new().start().await;
    for (id, members) in [
        ("9223372036854775808", ""),
        ("18446744073709551615", ""),
        ("7", r#","result":{}"#),
        ("7", r#","error":{"code":1,"message":"a"}"#),
        ("7", r#","else":1"#),
    ] {
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"get_user_details"}}{members}}}"#
        );
        assert_eq!(refusal(&site, &call).await, (400, -32600, "invalid_message".into()), "{call}");
    }
}

#[tokio::test]
async fn a_body_that_takes_much_memory_is_refused() {
    let site = Setup::new().start().await;
    let ping = |value: &str, values: usize| {
        let values = vec![value; values].join(",");
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"ping","params":{{"x":[{values}]}}}}"#)
    };
    let nested = format!("{}0{}", r#"{"":"#.repeat(25), "}".repeat(25));
    for (value, most) in [("0", 19_900), (&*nested, 37)] {
        assert_eq!(send(&site, ping(value, most)).await.status(), 200, "{value}");
        assert_eq!(refusal(&site, &ping(value, most + 100)).await, (400, -32700, "invalid_json".into()), "{value}");
    }
}

#[tokio::test]
async fn a_member_that_serde_json_keeps_for_itself_is_refused() {
    let site = Setup::new().start().await;
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_user_details","arguments":
        {"$serde_json::private::RawValue":"{\"top\":1,\"top\":2}"}}}"#;
    assert_eq!(refusal(&site, call).await, (400, -32700, "invalid_json".into()));
}

#[tokio::test]
async fn clients_that_do_not_exclude_json_get_an_answer() {
    let site = Setup::new().start().await;
    let token = site.setup.tenant.token(ALICE);
    let tools = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
    let request = || site.http.post(site.url("/mcp")).bearer_auth(&token).header("content-type", "application/json");
    for accept in [None, Some("*/*"), Some("application/json"), Some("application/*;q=0.5"), Some("text/html, */*")] {
        let mut request = request().body(tools);
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{accept:?}");
        assert!(response.json::<Value>().await.unwrap()["result"]["tools"].is_array(), "{accept:?}");
    }
    for accept in ["text/html", "text/event-stream", "*/*, application/json;q=0"] {
        let response = request().header("accept", accept).body(tools).send().await.unwrap();
        assert_eq!(response.status(), 406, "{accept}");
        assert_eq!(site.audit_of(&response).await["reason"], "not_acceptable");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["id"], 7, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("Accept: application/json"), "{answer}");
    }
}

#[tokio::test]
async fn a_slash_at_the_end_of_the_path_makes_no_difference_and_other_paths_name_the_endpoint() {
    let site = Setup::new().start().await;
    let token = site.setup.tenant.token(ALICE);
    let tools = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
    let post = |path: &str| site.http.post(site.url(path)).header("content-type", "application/json").body(tools);
    for path in ["/mcp", "/mcp/"] {
        let response = post(path).bearer_auth(&token).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(site.audit_of(&response).await["reason"], "authenticated", "{path}");
        assert_eq!(post(path).send().await.unwrap().status(), 401, "{path}");
    }
    for path in ["/", "/mcp//", "/mcp/sse", "/mcp/message", "/mcpx", "/MCP"] {
        let response = post(path).bearer_auth(&token).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        let answer: Value = response.json().await.unwrap();
        let message = answer["message"].as_str().unwrap();
        assert!(message.ends_with("the MCP endpoint is https://graph.mcp.contoso.com/mcp"), "{message}");
        let is_old = path == "/mcp/sse" || path == "/mcp/message";
        assert_eq!(message.contains("transport of 2024-11-05 is not served"), is_old, "{message}");
    }
}

#[tokio::test]
async fn every_refusal_of_a_header_is_json() {
    let site = Setup::new().start().await;
    let ping = json!({ "jsonrpc": "2.0", "id": 7, "method": "ping" }).to_string();
    for (header, value, status) in [
        ("content-type", "text/plain", 415),
        ("content-type", "application/json5", 415),
        ("accept", "text/html", 406),
        ("mcp-protocol-version", "1999-01-01", 400),
        ("host", "evil.example", 403),
        ("origin", "https://evil.example", 403),
        ("authorization", "Bearer a b", 400),
    ] {
        let mut request =
            site.request().bearer_auth(site.setup.tenant.token(ALICE)).body(ping.clone()).build().unwrap();
        request.headers_mut().insert(header, value.parse().unwrap());
        let response = site.http.execute(request).await.unwrap();
        assert_eq!(response.status(), status, "{header}: {value}");
        assert_eq!(response.headers()["content-type"], "application/json", "{header}: {value}");
        let answer: Value = response.json().await.unwrap();
        let text = ["/message", "/error/message", "/error_description"].into_iter().find_map(|at| answer.pointer(at));
        assert!(text.and_then(Value::as_str).is_some_and(|text| !text.is_empty()), "{header}: {answer}");
    }
}

#[tokio::test]
async fn a_client_of_2025_11_25_initializes_without_a_session() {
    let site = Setup::new().start().await;
    let token = site.setup.tenant.token(ALICE);
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
    });
    let response = site.rpc(&token, "initialize", params).await;
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("mcp-session-id"));
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(answer["result"]["serverInfo"]["name"], "mcp-entra-server");
    assert!(answer["result"]["capabilities"]["tools"].is_object());

    let initialized = send(&site, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    assert_eq!(initialized.status(), 202);
    assert_eq!(site.tools(&token).await, ["get_user_details", "list_my_messages"]);
}

#[tokio::test]
async fn a_client_of_2026_07_28_discovers_and_calls_without_a_handshake() {
    let site = Setup::new().start().await;
    let (status, answer) =
        send_modern(&site, &modern("server/discover", json!({})), &[("mcp-method", "server/discover")]).await;
    assert_eq!(status, 200, "{answer}");
    let versions = json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"]);
    assert_eq!(answer["result"]["supportedVersions"], versions, "{answer}");

    let call = modern("tools/call", json!({ "name": "get_user_details", "arguments": {} }));
    let headers = [("mcp-method", "tools/call"), ("mcp-name", "get_user_details")];
    let (status, answer) = send_modern(&site, &call, &headers).await;
    assert_eq!(
        (status, answer["result"]["structuredContent"]["displayName"].as_str()),
        (200, Some("Alice Adams")),
        "{answer}"
    );
    assert_eq!(answer["result"]["resultType"], "complete");
}

#[tokio::test]
async fn a_header_that_contradicts_the_body_is_refused() {
    let site = Setup::new().start().await;
    let call = modern("tools/call", json!({ "name": "get_user_details", "arguments": {} }));
    for headers in [
        [("mcp-method", "tools/list"), ("mcp-name", "get_user_details")],
        [("mcp-method", "tools/call"), ("mcp-name", "list_my_messages")],
    ] {
        let (status, answer) = send_modern(&site, &call, &headers).await;
        assert_eq!((status, answer["error"]["code"].as_i64()), (400, Some(-32020)), "{headers:?}: {answer}");
    }
}

#[tokio::test]
async fn a_list_is_private_to_its_caller() {
    let site = Setup::new().start().await;
    let (_, answer) = send_modern(&site, &modern("tools/list", json!({})), &[("mcp-method", "tools/list")]).await;
    assert_eq!(answer["result"]["cacheScope"], "private", "{answer}");
}
