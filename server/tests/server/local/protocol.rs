//! The lines of the protocol: what is answered without anybody's sign-in, and what no line can do.

use std::time::Duration;

use serde_json::{Value, json};

use super::person::{Client, PROFILE, Person, assert_profile, error_text};
use crate::harness::PATIENCE;

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
async fn an_alias_is_listed_and_answers_as_the_tool_that_it_stands_for() {
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
async fn what_is_no_message_is_answered_as_such_and_the_session_goes_on() {
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
async fn what_comes_before_the_handshake_does_not_end_the_session() {
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
async fn a_client_that_looks_first_and_gives_up_on_that_may_begin_by_a_handshake_all_the_same() {
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
async fn a_second_request_of_the_id_of_one_that_runs_is_refused_and_the_first_is_answered() {
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
async fn requests_that_are_piped_in_are_answered_though_the_input_ends_at_once() {
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
async fn logs_go_to_a_file_where_one_is_named_and_hold_no_token_and_no_name() {
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
