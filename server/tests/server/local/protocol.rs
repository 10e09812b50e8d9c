//! Tests of the protocol's lines: requests that need no sign-in, and the limits of every line.

use std::time::Duration;

use entra_emulator::{Fault, FaultKind, Host, Matcher};
use serde_json::{Value, json};

use super::person::{Client, PROFILE, Person, assert_profile, error_text};
use crate::harness::PATIENCE;
use crate::tenant::{ALICE, control};

const TOOLS: [&str; 2] = ["get_user_details", "list_my_messages"];

fn names(listed: &Value) -> Vec<&str> {
    let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

/// The error code and id of an answer.
fn error(answer: &Value) -> (i64, Value) {
    (answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{answer}")), answer["id"].clone())
}

#[tokio::test]
async fn handshake_and_lists_are_answered_without_the_network_and_without_a_sign_in() {
    let person = Person::new();
    let nowhere = ["--authority", "https://localhost:9", "--graph-url", "https://localhost:9"];
    let mut client = person.client_with(&nowhere, json!({})).await;
    assert_eq!(names(&client.ask("tools/list", json!({})).await), TOOLS);
    assert_eq!(client.ask("ping", json!({})).await["result"], json!({}));
    for (tool, told) in [("send_mail", "start this program with --allow send_mail"), ("nothing", "tool not found")] {
        let missing = client.ask("tools/call", json!({"name": tool, "arguments": {}})).await;
        assert_eq!(error(&missing).0, -32602, "{tool}");
        assert!(missing["error"]["message"].as_str().unwrap().contains(told), "{missing}");
    }
    assert_eq!(person.opened(), [""; 0]);
    let log = client.end().await;
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn an_alias_is_listed_and_answers_as_its_tool() {
    let person = Person::new();
    let arguments = ["--token-store", "file", "--alias", "GetUserDetailsFromGraph=get_user_details"];
    let mut client = person.client_with(&arguments, json!({})).await;
    let listed = client.ask("tools/list", json!({})).await;
    assert_eq!(names(&listed), [TOOLS[0], TOOLS[1], "GetUserDetailsFromGraph"]);
    let tools = &listed["result"]["tools"];
    assert_eq!(tools[2]["inputSchema"], tools[0]["inputSchema"]);
    person.signs_in(&mut client).await;
    assert_profile(&client.call("GetUserDetailsFromGraph").await);
    client.end().await;
}

#[tokio::test]
async fn a_user_gets_their_own_prompts_without_a_sign_in() {
    let person = Person::new();
    for (arguments, expected) in [
        (&[][..], &["introduce_me", "summarize_inbox"][..]),
        (&["--allow", "send_mail"], &["draft_reply", "introduce_me", "summarize_inbox"]),
        (&["--scopes", "Mail.Read"], &["summarize_inbox"]),
    ] {
        let mut client = person.client_with(arguments, json!({})).await;
        let listed = client.ask("prompts/list", json!({})).await;
        let listed = listed["result"]["prompts"].as_array().unwrap().clone();
        assert_eq!(Vec::from_iter(listed.iter().map(|prompt| prompt["name"].as_str().unwrap())), expected);
        let got = client.ask("prompts/get", json!({"name": "summarize_inbox", "arguments": {"count": "5"}})).await;
        let text = got["result"]["messages"][0]["content"]["text"].as_str().unwrap();
        assert!(text.contains("`list_my_messages` with `top` 5"), "{text}");
        let completing = json!({
            "ref": {"type": "ref/prompt", "name": "summarize_inbox"}, "argument": {"name": "count", "value": "2"},
        });
        let completed = client.ask("completion/complete", completing).await;
        assert_eq!(completed["result"]["completion"]["values"], json!(["25"]), "{completed}");
        let missing = client.ask("prompts/get", json!({"name": "plan_meeting", "arguments": {"subject": "x"}})).await;
        assert_eq!(error(&missing).0, -32602, "{missing}");
        client.end().await;
    }
    assert_eq!(person.opened(), [""; 0]);
}

#[tokio::test]
async fn the_profile_is_read_once_the_person_has_signed_in_and_an_error_until_then() {
    let person = Person::new();
    let mut client = person.client_with(&[], json!({"elicitation": {"url": {}}})).await;
    let uri = json!({"uri": "graph://me/profile"});
    let listed = client.ask("resources/list", json!({})).await;
    assert_eq!(listed["result"]["resources"][0]["uri"], uri["uri"], "{listed}");
    let declines = async |client: &mut Client| {
        let read = client.send("resources/read", uri.clone()).await;
        let is_asked = |message: &Value| message["method"] == "elicitation/create";
        let asked = client.message(PATIENCE, is_asked).await;
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}});
        client.line(&answer.to_string()).await;
        client.answer(read).await
    };
    let declined = declines(&mut client).await;
    assert_eq!(error(&declined).0, -32603, "a resource has no result for an error: {declined}");
    assert!(declined["error"]["message"].as_str().unwrap().contains("was declined"), "{declined}");
    client.end().await;

    let mut client = person.client().await;
    let read = client.send("resources/read", uri).await;
    person.signs_in_at(0, ALICE).await;
    let answer = client.answer(read).await;
    let text = answer["result"]["contents"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["userPrincipalName"], ALICE);
    client.end().await;
}

#[tokio::test]
async fn a_client_that_requests_progress_is_notified_that_graph_asks_to_wait() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    for token in [Some("mine"), None] {
        let busy = FaultKind::Status {
            status: 429,
            headers: [("Retry-After".to_owned(), "0.2".to_owned())].into(),
            body: json!({"error": {"code": "TooManyRequests", "message": "Slow down."}}).to_string(),
        };
        let matcher = Matcher { tenant: Some(person.tenant.id), host: Some(Host::Graph), ..Matcher::default() };
        control().inject(Fault { matcher, times: 1, kind: busy }).unwrap();
        let mut params = json!({"name": PROFILE, "arguments": {}});
        if let Some(token) = token {
            params["_meta"] = json!({"progressToken": token});
        }
        let call = client.send("tools/call", params).await;
        if let Some(token) = token {
            let is_progress = |message: &Value| message["method"] == "notifications/progress";
            let told = client.message(PATIENCE, is_progress).await;
            let (of, message) = (&told["params"]["progressToken"], &told["params"]["message"]);
            assert_eq!((of, message), (&json!(token), &json!("waiting 1 s as Microsoft Graph requests")), "{told}");
        }
        assert_profile(&client.answer(call).await);
    }
    client.end().await;
}

#[tokio::test]
async fn an_invalid_message_gets_an_error_and_the_session_continues() {
    let person = Person::new();
    let mut client = person.client().await;
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":"{}"}}}}"#, "a".repeat(200_000));
    for (line, code, id) in [
        ("{", -32700, Value::Null),
        ("\u{1}", -32700, Value::Null),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","method":"tools/list"}"#, -32700, Value::Null),
        (r#"[{"jsonrpc":"2.0","id":7,"method":"ping"}]"#, -32600, Value::Null),
        (r#"{"id":7,"method":"ping"}"#, -32600, json!(7)),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","extra":1}"#, -32600, json!(7)),
        (r#"{"jsonrpc":"2.0","id":"b","method":"ping","params":null}"#, -32600, json!("b")),
        (r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":1}}"#, -32602, json!("a")),
        (r#"{"jsonrpc":"2.0","id":8,"method":"nothing"}"#, -32601, json!(8)),
        (&long, -32600, Value::Null),
    ] {
        client.line(line).await;
        let answer = client.message(PATIENCE, |message| message.get("error").is_some()).await;
        assert_eq!(error(&answer), (code, id), "{line:.80}");
    }
    for line in [
        "",
        "  ",
        r#"{"jsonrpc":"2.0","method":"notifications/unknown"}"#,
        r#"{"jsonrpc":"2.0","id":99,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":99,"error":{"code":1,"message":"no"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":12345}}"#,
    ] {
        client.line(line).await;
        assert_eq!(client.ask("ping", json!({})).await["result"], json!({}), "after {line}");
    }
    client.end().await;
}

#[tokio::test]
async fn messages_before_the_handshake_do_not_end_the_session() {
    let person = Person::new();
    let mut client = Client::start(person.command(&[]));
    client.line(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    client.line(r#"{"jsonrpc":"2.0","id":1000,"result":{}}"#).await;
    assert_eq!(client.ask("ping", json!({})).await["result"], json!({}));
    let early = client.ask("tools/list", json!({})).await;
    assert!(early.get("error").is_some(), "{early}");
    client.begin(json!({})).await;
    assert_eq!(names(&client.ask("tools/list", json!({})).await), TOOLS);
    client.end().await;
}

#[tokio::test]
async fn a_client_that_cancels_its_discovery_may_still_begin_with_a_handshake() {
    let person = Person::new();
    let mut client = Client::start(person.command(&[]));
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let looked = client.send("server/discover", json!({"_meta": meta})).await;
    client.answer(looked).await;
    for line in [
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": looked}}),
        json!({"jsonrpc": "2.0", "id": 77, "result": {}}),
    ] {
        client.line(&line.to_string()).await;
        assert_eq!(client.ask("ping", json!({})).await["result"], json!({}), "after {line}");
    }
    client.begin(json!({})).await;
    assert_eq!(names(&client.ask("tools/list", json!({})).await), TOOLS);
    client.end().await;
}

#[tokio::test]
async fn a_second_request_with_the_id_of_a_running_one_is_refused_and_the_first_is_answered() {
    let person = Person::new();
    person.launcher("sleep 1; exit 3");
    let mut client = person.client().await;
    let call =
        |name: &str| json!({"jsonrpc": "2.0", "id": 500, "method": "tools/call", "params": {"name": name}}).to_string();
    client.line(&call(PROFILE)).await;
    client.line(&call("list_my_messages")).await;
    let refused = client.message(PATIENCE, |message| message["id"] == 500).await;
    assert_eq!(error(&refused).0, -32600, "{refused}");
    assert!(error_text(&client.answer(500).await).contains("--sign-in"));
    client.end().await;
}

#[tokio::test]
async fn a_signal_to_stop_ends_the_program_as_the_end_of_its_input_does() {
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
        let person = Person::new();
        let mut client = person.client().await;
        assert_eq!(client.ask("ping", json!({})).await["result"], json!({}));
        let id = nix::unistd::Pid::from_raw(client.child.id().unwrap().try_into().unwrap());
        nix::sys::signal::kill(id, signal).unwrap();
        let log = client.ended().await;
        assert!(log.contains("\"ending\""), "{signal}: {log}");
    }
}

#[tokio::test]
async fn piped_requests_are_answered_although_the_input_ends_at_once() {
    let person = Person::new();
    let mut client = Client::start(person.command(&[]));
    let info = json!({"name": "test", "version": "1"});
    let begin = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info});
    let first = client.send("initialize", begin).await;
    let second = client.send("tools/list", json!({})).await;
    client.close();
    assert_eq!(client.answer(first).await["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(names(&client.answer(second).await), TOOLS);
    client.end().await;
}

#[tokio::test]
async fn audit_lines_name_the_account_once_it_is_known_and_go_to_standard_error_or_a_file() {
    let person = Person::new();
    let file = person.file("audit.jsonl");
    let arguments = ["--token-store", "file", "--audit-file", file.to_str().unwrap()];
    let mut client = person.client_with(&arguments, json!({})).await;
    person.signs_in(&mut client).await;
    let log = client.end().await;
    let written = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let call = lines.iter().find(|line| line["method"] == "tools/call").unwrap();
    assert_eq!(call["objectId"], person.tenant.user_id(crate::tenant::ALICE).to_string());
    assert_eq!((&call["tool"], &call["decision"]), (&json!("get_user_details"), &json!("allowed")));
    assert!(!log.contains("\"schema\""), "{log}");

    assert_eq!(lines.len(), 1, "handshakes and lists have no line: {written}");

    let mut client = person.client().await;
    assert_profile(&client.call(PROFILE).await);
    let log = client.end().await;
    let is_call = |line: &str| line.contains("\"method\":\"tools/call\"") && line.contains("\"schema\"");
    assert_eq!(log.lines().filter(|line| is_call(line)).count(), 1, "{log}");
}

#[tokio::test]
async fn logs_are_written_to_the_named_file_and_contain_no_token_and_no_name() {
    let person = Person::new();
    let file = person.file("log.jsonl");
    let arguments = ["--token-store", "file", "--log-file", file.to_str().unwrap()];
    let mut command = person.command(&arguments);
    command.env("RUST_LOG", "trace");
    let mut client = Client::start(command);
    client.begin(json!({})).await;
    person.signs_in(&mut client).await;
    client.end().await;
    let log = std::fs::read_to_string(&file).unwrap();
    assert!(log.contains("signed in"), "{log}");
    let kept = person.kept().to_string();
    let secrets = kept.split('"').filter(|text| text.len() > 40);
    assert!(secrets.clone().count() >= 2, "{kept}");
    for secret in secrets.chain(["alice@contoso.com", "code_verifier"]) {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_ends_the_program_when_it_goes() {
    let person = Person::new();
    let mut client = Client::start(person.command(&[]));
    drop(client.child.stderr.take());
    for _ in 0..1000 {
        client.line_while_taken(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
    }
    let mut child = client.leave();
    let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
}
