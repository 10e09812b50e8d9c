//! Tests of the scripted backend's misbehaviour.

use std::net::TcpListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid};
use reqwest::StatusCode;
use serde_json::{Value, json};
use stock_backends::scripted::{Answers, Era, Listed, Options};

use crate::http::{Answer, Endpoint};
use crate::peer::{Peer, Transport, text_of};
use crate::pipe::Pipe;

/// Sends a call over stdio.
async fn send(pipe: &mut Pipe, id: u64, tool: &str, arguments: Value) {
    let params = json!({ "name": tool, "arguments": arguments });
    pipe.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })).await;
}

/// A legacy backend over stdio, ready for calls.
async fn legacy() -> Pipe {
    let mut pipe = Pipe::start(&Options::default().launch().unwrap());
    pipe.initialize().await;
    pipe
}

/// A legacy backend over stdio that has received one call.
async fn sent(tool: &str, arguments: Value) -> Pipe {
    let mut pipe = legacy().await;
    send(&mut pipe, 1, tool, arguments).await;
    pipe
}

/// The answer of a backend over HTTP to a call.
async fn over_http(options: Options, tool: &str, arguments: Value) -> Answer {
    let peer = Peer::over_http(options).await;
    let Transport::Http(endpoint, _) = &peer.transport else { panic!("over HTTP") };
    let params = json!({ "name": tool, "arguments": arguments });
    match peer.era {
        Era::Modern => endpoint.ask_modern("tools/call", params).await,
        Era::Legacy => endpoint.ask("tools/call", params).await,
    }
}

#[tokio::test]
async fn answers_have_other_ids_repetitions_and_a_reversed_order() {
    let mut pipe = sent("answer_other_id", json!({})).await;
    for id in [json!(987_654_321), json!("nobody"), Value::Null, json!(1)] {
        assert_eq!(pipe.message().await["id"], id);
    }
    send(&mut pipe, 2, "answer_twice", json!({})).await;
    for text in ["the first", "the second"] {
        assert_eq!(text_of(&pipe.message().await), text);
    }
    send(&mut pipe, 3, "cross_ids", json!({ "value": "a" })).await;
    send(&mut pipe, 4, "cross_ids", json!({ "value": "b" })).await;
    let (first, second) = (pipe.message().await, pipe.message().await);
    let mut ids = [&first, &second].map(|answer| (answer["id"].as_u64().unwrap(), text_of(answer)));
    assert_ne!(ids[0].0, ids[1].0);
    ids.sort();
    assert_eq!(ids, [(3, "\"a\"".to_owned()), (4, "\"b\"".to_owned())]);
}

#[tokio::test]
async fn answers_are_invalid_json_rpc() {
    let mut pipe = sent("duplicate_members", json!({})).await;
    assert_eq!(pipe.line().await.unwrap().matches(r#""id":1"#).count(), 2);
    send(&mut pipe, 1, "deep_nesting", json!({})).await;
    let line = pipe.line().await.unwrap();
    assert!(line.contains(&"[".repeat(100_000)));
    send(&mut pipe, 1, "wrong_jsonrpc", json!({})).await;
    assert_eq!(pipe.message().await["jsonrpc"], "1.0");
    send(&mut pipe, 1, "odd_answer", json!({})).await;
    assert_eq!(pipe.message().await, json!({ "jsonrpc": "2.0", "id": 1 }));
    send(&mut pipe, 1, "big_answer", json!({})).await;
    assert_eq!(text_of(&pipe.message().await).len(), 16 << 20);
}

#[tokio::test]
async fn lines_are_not_messages() {
    let params = json!({ "name": "garbage", "arguments": {} });
    let mut pipe = legacy().await;
    pipe.send(&json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params })).await;
    assert_eq!(pipe.bytes(b"{\"jsonrpc\":\"2.0\",\"id\":9,").await.first(), Some(&b'L'));
    let mut pipe = sent("long_line", json!({})).await;
    assert!(!pipe.some(20 << 20).await.contains(&b'\n'));
}

#[tokio::test]
async fn the_client_is_asked_and_flooded() {
    let mut pipe = sent("ask_client", json!({})).await;
    for method in ["sampling/createMessage", "elicitation/create", "roots/list", "ping"] {
        let question = pipe.message().await;
        assert_eq!(question["method"], method);
        let error = json!({ "code": -32601, "message": method });
        pipe.send(&json!({ "jsonrpc": "2.0", "id": question["id"], "error": error })).await;
    }
    let told = pipe.message().await;
    assert_eq!(told["result"]["structuredContent"]["roots/list"]["error"]["message"], "roots/list");
    send(&mut pipe, 1, "flood_notifications", json!({ "count": 5_000 })).await;
    for _ in 0..5_000 {
        assert_eq!(pipe.message().await["method"], "notifications/message");
    }
    assert_eq!(text_of(&pipe.message().await), "flooded");
    send(&mut pipe, 1, "foreign_progress", json!({ "tokens": ["another's"] })).await;
    assert_eq!(pipe.message().await["params"]["progressToken"], "another's");
}

#[tokio::test]
async fn an_assertion_is_replayed_where_the_caller_says() {
    let thief = Peer::over_http(Options::of(Era::Legacy)).await;
    let victim = Peer::over_http(Options::of(Era::Modern)).await;
    let (Transport::Http(thief, _), Transport::Http(_, victim)) = (&thief.transport, &victim.transport) else {
        panic!("over HTTP")
    };
    let params = json!({ "name": "replay_assertion", "arguments": { "url": victim.url() } });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let answer = Endpoint::send(thief.post(&message).header("mcp-entra-assertion", "of.the.user")).await;
    assert_eq!(answer.message()["result"]["structuredContent"]["status"], 200, "{}", answer.body);
    let presented = ("authorization".to_owned(), "Bearer of.the.user".to_owned());
    assert!(victim.received().last().unwrap().headers.contains(&presented));
}

#[tokio::test]
async fn http_answers_have_no_message() {
    for era in [Era::Legacy, Era::Modern] {
        let failed = over_http(Options::of(era), "http_500", json!({ "status": 503 })).await;
        assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
        let redirected = over_http(Options::of(era), "redirect", json!({ "to": "http://192.0.2.1/" })).await;
        assert_eq!(
            (redirected.status, redirected.headers["location"].to_str().unwrap()),
            (StatusCode::FOUND, "http://192.0.2.1/")
        );
    }
}

#[tokio::test]
async fn events_are_split_so_that_only_a_complete_parser_reads_them() {
    let answer = over_http(Options::of(Era::Modern), "sse_split", json!({})).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    assert!(answer.body.starts_with('\u{feff}') && answer.body.contains("\r\r") && answer.body.contains("\r\n\r\n"));
    let lines = answer.body.split(['\r', '\n']);
    let data: Vec<_> = lines.filter_map(|line| line.strip_prefix("data: {").or(line.strip_prefix("data: ,"))).collect();
    let joined: Value = serde_json::from_str(&format!("{{{},{}", data[0], data[1])).unwrap();
    assert_eq!(text_of(&joined), "split");
}

#[tokio::test]
async fn a_question_to_the_client_turns_an_answer_into_events() {
    let answer = over_http(Options { answers: Answers::Json, ..Options::default() }, "ask_client", json!({})).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    assert_eq!(answer.message()["result"]["structuredContent"]["ping"], Value::Null);
}

#[tokio::test]
async fn lists_are_too_long_endless_or_have_invalid_names() {
    let of = |listed| Options { listed, page_size: 4_000, ..Options::of(Era::Modern) };
    let mut peer = Peer::over_http(of(Listed::Many)).await;
    let (tools, pages) = peer.all("tools/list", "tools").await;
    assert_eq!((tools.len(), pages), (10_000, 3));
    let mut peer = Peer::over_http(of(Listed::BigPage)).await;
    let page = peer.ask("tools/list", json!({})).await;
    assert!(page.to_string().len() > 20 << 20);
    assert_eq!(page["result"]["nextCursor"], Value::Null);
    // A tool sets it, as over stdio at run time.
    assert_eq!(peer.text("cursor_loop", json!({})).await, "set");
    let page = peer.ask("tools/list", json!({ "cursor": "0" })).await;
    assert_eq!(page["result"]["nextCursor"], "0");
    peer.text("bad_names", json!({})).await;
    let (tools, _) = peer.all("tools/list", "tools").await;
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"echo\u{0}") && names.iter().filter(|name| **name == "echo").count() == 2);
}

#[tokio::test]
async fn a_backend_listens_on_all_addresses() {
    let mut peer = Peer::over_http(Options::default()).await;
    let port = peer.text("listen_everywhere", json!({})).await.parse::<u16>().unwrap();
    assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
}

#[tokio::test]
async fn a_process_ends_with_and_without_a_part_of_an_answer() {
    let mut pipe = sent("exit", json!({ "code": 3 })).await;
    assert_eq!(pipe.line().await, None);
    assert_eq!(pipe.child.wait().await.unwrap().code(), Some(3));
    let mut pipe = sent("exit_midway", json!({})).await;
    assert!(pipe.line().await.unwrap().ends_with(r#""content":["#));
    assert_eq!(pipe.child.wait().await.unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_tool_does_not_end_the_process_of_a_test() {
    let answer = over_http(Options::default(), "exit", json!({})).await;
    assert_eq!(answer.message()["result"]["isError"], true);
}

#[tokio::test]
async fn a_process_leaves_another_behind() {
    for own_group in [false, true] {
        let mut pipe = sent("fork", json!({ "own_group": own_group })).await;
        let left = Pid::from_raw(text_of(&pipe.message().await).parse().unwrap());
        assert!(pipe.ends_well().await);
        let leads = getpgid(Some(left)).unwrap() == left;
        // Kills the process, which succeeds only if it exists.
        kill(left, Signal::SIGKILL).unwrap();
        assert_eq!(leads, own_group);
    }
}

#[tokio::test]
async fn a_process_outlives_its_input_and_sigterm() {
    let mut pipe = sent("ignore_sigterm", json!({})).await;
    assert_eq!(text_of(&pipe.message().await), "ignored");
    let pid = Pid::from_raw(pipe.child.id().unwrap().cast_signed());
    let mut child = pipe.close();
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), child.wait()).await.is_err());
    child.kill().await.unwrap();
}

#[tokio::test]
async fn a_process_fills_stderr_that_is_not_read() {
    let mut command = Options::default().launch().unwrap().command();
    command.stderr(std::process::Stdio::piped());
    let mut pipe = Pipe::of(command);
    pipe.initialize().await;
    send(&mut pipe, 1, "fill_stderr", json!({})).await;
    let mut stderr = pipe.child.stderr.take().unwrap();
    let answer = pipe.message();
    let mut answer = std::pin::pin!(answer);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), &mut answer).await.is_err());
    let drained = async { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await };
    tokio::select! {
        answer = answer => assert_eq!(text_of(&answer), "filled"),
        drained = drained => panic!("stderr ended: {drained:?}"),
    }
}
