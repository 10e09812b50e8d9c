//! The lines of the protocol: what is answered without anybody's sign-in, and what no line can do.

use std::time::Duration;

use serde_json::{Value, json};

use super::person::{Client, Person, assert_profile};
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
    let missing = client.ask("tools/call", json!({"name": "send_mail", "arguments": {}})).await;
    assert_eq!(error(&missing).0, -32602, "a tool that writes was not allowed");
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
        (r#"{"id":7,"method":"ping"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":7,"method":"ping","extra":1}"#, -32600, Value::Null),
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

    let client = person.client().await;
    let log = client.end().await;
    assert!(log.lines().any(|line| line.contains("\"method\":\"initialize\"") && line.contains("\"schema\"")), "{log}");
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
    assert!(status.code().is_some(), "{status}");
}
