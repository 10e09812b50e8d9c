//! Tests of attacking backends: wrong answers, wrong bytes, silence, floods, and processes that do not end.

use std::time::Duration;

use futures::future::join_all;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::{Value, json};
use stock_backends::scripted::{Answers, Era, Options};
use tokio::time::timeout;

use super::puppet::{Puppet, described, status, told};
use super::stage::{ERAS, Stage, answer, failure, request, text};
use crate::harness::eventually;
use crate::scripted::Events;
use crate::tenant::{ALICE, BOB};

/// Time limit of an attack: far less than calls may take.
const SOON: Duration = Duration::from_secs(60);

/// Returns the answer to a call of alice, within the limit.
async fn soon(stage: &Stage, is_modern: bool, tool: &str, arguments: Value) -> Value {
    let call = stage.call(is_modern, tool, arguments);
    timeout(SOON, call).await.unwrap_or_else(|_| panic!("{tool} of {} takes too long", stage.name()))
}

/// Returns the answer to a call of this user, within the limit.
async fn soon_of(stage: &Stage, user: &str, tool: &str, arguments: Value) -> Value {
    let call = stage.call_of(user, true, tool, arguments);
    timeout(SOON, call).await.unwrap_or_else(|_| panic!("{tool} of {} takes too long", stage.name()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_answer_only_fails_its_call_at_once() {
    let mut stages = Stage::each().await;
    stages.push(Stage::http(Options { answers: Answers::Sse, ..Options::of(Era::Legacy) }).await);
    stages.push(Stage::http(Options { answers: Answers::Sse, ..Options::of(Era::Modern) }).await);
    join_all(stages.iter().map(async |stage| {
        let slow = json!({ "name": "slow", "arguments": { "signal": "go", "progress_ms": 20 }, "_meta": { "progressToken": 1 } });
        let mut beside = Events::of(stage.request(true, "tools/call", slow).send().await.unwrap());
        beside.next().await.unwrap();
        for is_modern in [true, false] {
            for tool in ["duplicate_members", "deep_nesting", "wrong_jsonrpc", "odd_answer"] {
                let answer = soon(stage, is_modern, tool, json!({})).await;
                assert!(failure(&answer).contains("is not MCP"), "{} {tool} {answer}", stage.name());
            }
            for (tool, expected) in [("answer_other_id", "for the caller"), ("answer_twice", "the first"), ("sse_split", "split")] {
                let answer = soon(stage, is_modern, tool, json!({})).await;
                assert_eq!(text(&answer), expected, "{} {tool}", stage.name());
            }
            let garbage = soon(stage, is_modern, "garbage", json!({})).await;
            let expected = match (stage.is_http(), stage.options.answers) {
                (true, Answers::Json) => "is not MCP",
                (true, Answers::Sse) => "ended before it answered",
                (false, _) => "after garbage",
            };
            assert!(text(&garbage).contains(expected), "{} {garbage}", stage.name());
            assert_eq!(text(&soon(stage, is_modern, "echo", json!({ "b": 1 })).await), r#"{"b":1}"#);
        }
        stage.call(true, "release", json!({ "signal": "go" })).await;
        assert_eq!(text(&beside.rest().await.pop().unwrap()), "released", "{}", stage.name());
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_another_order_reach_their_callers() {
    let stages = Stage::each().await;
    join_all(stages.iter().map(async |stage| {
        for _ in 0..5 {
            let call = |value: &'static str| soon(stage, true, "cross_ids", json!({ "value": value }));
            let (first, second) = tokio::join!(call("a"), call("b"));
            assert_eq!((text(&first), text(&second)), (r#""a""#, r#""b""#), "{}", stage.name());
        }
        if stage.is_http() {
            let bobs = stage.call_of(BOB, true, "cross_ids", json!({ "value": "b" }));
            let (first, second) = tokio::join!(soon(stage, true, "cross_ids", json!({ "value": "a" })), bobs);
            assert_eq!((text(&first), text(&second)), (r#""a""#, r#""b""#), "{}", stage.name());
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_4_mib_is_refused_at_once_and_other_calls_continue() {
    let mut stages = Stage::each().await;
    stages.push(Stage::http(Options { answers: Answers::Sse, ..Options::of(Era::Modern) }).await);
    join_all(stages.iter().map(async |stage| {
        let slow = json!({ "name": "slow", "arguments": { "signal": "go", "progress_ms": 20 }, "_meta": { "progressToken": 1 } });
        let mut bobs = Events::of(stage.request_of(BOB, true, "tools/call", slow.clone()).send().await.unwrap());
        bobs.next().await.unwrap();
        let mut own = Events::of(stage.request(true, "tools/call", slow).send().await.unwrap());
        own.next().await.unwrap();
        let big = soon(stage, true, "big_answer", json!({ "bytes": 9 << 20 })).await;
        assert!(failure(&big).contains("more than 4 MiB"), "{} {big}", stage.name());
        assert_eq!(text(&soon(stage, true, "release", json!({ "signal": "go" })).await), "released");
        assert_eq!(text(&own.rest().await.pop().unwrap()), "released", "{}", stage.name());
        let endless = soon(stage, true, "long_line", json!({})).await;
        assert!(failure(&endless).contains("more than 4 MiB"), "{} {endless}", stage.name());
        stage.call_of(BOB, true, "release", json!({ "signal": "go" })).await;
        assert_eq!(text(&bobs.rest().await.pop().unwrap()), "released", "{}", stage.name());
        let again = async || {
            let again = soon(stage, true, "echo", json!({})).await;
            (again["result"]["content"][0]["text"] == "{}").then_some(())
        };
        eventually("it works again", again).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_caller_whose_large_answers_use_its_memory_waits() {
    for era in ERAS {
        let stage = Stage::http(Options::of(era)).await;
        let half = |signal: &str| {
            let params = json!({ "name": "half_answer", "arguments": { "signal": signal } });
            tokio::spawn(answer(stage.request(true, "tools/call", params)))
        };
        let calls = Vec::from_iter((0..4).map(|_| half("all")));
        let count = async |tool| stage.received_of("tools/call", tool).await.len();
        eventually("the calls are there", async || (count("half_answer").await == 4).then_some(())).await;
        let large = |user: &'static str| soon_of(&stage, user, "big_answer", json!({ "bytes": 100_000 }));
        // An answer before the first halves does not wait, so further answers follow until one waits.
        let own = eventually("a large answer of Alice waits", async || {
            let own = tokio::spawn(answer(stage.request(
                true,
                "tools/call",
                json!({ "name": "big_answer", "arguments": { "bytes": 100_000 } }),
            )));
            for _ in 0..10 {
                assert_eq!(text(&large(BOB).await).len(), 100_000);
                assert_eq!(text(&soon(&stage, true, "echo", json!({})).await), "{}");
            }
            (!own.is_finished()).then_some(own)
        })
        .await;
        assert_eq!(text(&soon(&stage, true, "release", json!({ "signal": "all" })).await), "released");
        assert_eq!(text(&own.await.unwrap()).len(), 100_000);
        for call in calls {
            assert_eq!(text(&call.await.unwrap()).len(), 200 << 10, "{era:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_too_many_bytes_is_refused_although_each_event_is_short() {
    let puppet = Puppet::start(|received| match received.method() {
        "tools/list" => told(received, r#""result":{"tools":[{"name":"streams","inputSchema":{}}]}"#),
        "tools/call" => {
            let mib = usize::try_from(received.message["params"]["arguments"]["mib"].as_u64().unwrap()).unwrap();
            let answer = told(received, r#""result":{"content":[{"type":"text","text":"in"}]}"#).into_body();
            let comments = format!(": {}\n\n", "x".repeat((1 << 20) - 4)).repeat(mib);
            let body = format!("{comments}data: {answer}\n\n");
            axum::http::Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
        "prompts/list" => told(received, r#""result":{"prompts":[]}"#),
        "resources/list" => told(received, r#""result":{"resources":[]}"#),
        _ => described(received),
    })
    .await;
    let site = puppet.site(&["streams"]).await;
    let call = async |mib: usize| {
        let params = json!({ "name": "streams", "arguments": { "mib": mib } });
        answer(request(&site, ALICE, true, "tools/call", params)).await
    };
    assert_eq!(text(&call(15).await), "in");
    let refused = call(16).await;
    assert!(failure(&refused).contains("more than 4 MiB"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backends_question_to_the_client_is_refused_and_its_call_continues() {
    let stages = Stage::each().await;
    join_all(stages.iter().map(async |stage| {
        for is_modern in [true, false] {
            let mut params = json!({ "name": "ask_client", "arguments": {} });
            // Not even a client that supports questions is asked.
            let all = json!({ "sampling": {}, "elicitation": {}, "roots": {} });
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = all;
            let answer = answer(stage.request(is_modern, "tools/call", params)).await;
            let answers = &answer["result"]["structuredContent"];
            for method in ["sampling/createMessage", "elicitation/create", "roots/list"] {
                assert_eq!(answers[method]["error"]["code"], -32601, "{} {answer}", stage.name());
            }
            assert_eq!(answers["ping"]["result"], json!({}), "{} {answer}", stage.name());
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_notifications_blocks_neither_its_call_nor_another() {
    let stages = Stage::each().await;
    join_all(stages.iter().map(async |stage| {
        let flood = soon(stage, true, "flood_notifications", json!({ "count": 2_000 }));
        let beside = soon(stage, true, "echo", json!({}));
        let (flood, beside) = tokio::join!(flood, beside);
        assert_eq!((text(&flood), text(&beside)), ("flooded", "{}"), "{}", stage.name());
        if !stage.is_http() {
            assert_eq!(text(&soon(stage, true, "fill_stderr", json!({})).await), "filled");
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_modern_client_cancels_is_cancelled_at_the_backend() {
    let stages = Stage::each().await;
    join_all(stages.iter().map(async |stage| {
        let count = async || stage.received_of("tools/call", "never_answer").await.len();
        let call = stage.request(true, "tools/call", json!({ "name": "never_answer", "arguments": {} }));
        let call = tokio::spawn(call.send());
        eventually("the call is there", async || (count().await == 1).then_some(())).await;
        call.abort();
        let cancelled = async || {
            let counts = stage.call(true, "counts", json!({})).await;
            (counts["result"]["structuredContent"]["cancelled"] == json!(["never_answer"])).then_some(())
        };
        eventually(&format!("{} is told", stage.name()), cancelled).await;
        let told = stage.received().await.into_iter().filter(|one| one.method() == "notifications/cancelled").count();
        let closes = stage.is_modern() && stage.is_http();
        assert_eq!(told, usize::from(!closes), "{}", stage.name());
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_without_a_message_are_reported_and_redirects_are_not_followed() {
    let trap = Puppet::start(|_| status(200)).await;
    for era in ERAS {
        let stage = Stage::http(Options::of(era)).await;
        for status in [400, 404, 405, 409, 418, 429, 500, 502, 503] {
            let answer = soon(&stage, true, "http_500", json!({ "status": status })).await;
            // The session may be the reason, so a new one is begun.
            let is_lost = era == Era::Legacy && status == 404;
            assert!(is_lost || failure(&answer).contains(&format!("HTTP status {status}")), "{era:?} {answer}");
        }
        for status in [301, 302, 303, 307, 308] {
            let to = format!("http://127.0.0.1:{}/mcp", trap.port());
            let answer = soon(&stage, true, "redirect", json!({ "to": to, "status": status })).await;
            assert!(failure(&answer).contains(&format!("HTTP status {status}")), "{era:?} {answer}");
        }
    }
    assert_eq!((trap.received().len(), trap.gets()), (0, 0));
}

fn is_gone(pid: &str) -> bool {
    kill(Pid::from_raw(pid.parse().unwrap()), None) == Err(Errno::ESRCH)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_processes_of_a_backend_that_forks_and_ignores_its_end_are_ended() {
    let stage = Stage::stdio(Options::default()).await;
    let mut pids = vec![];
    for (tool, arguments) in [("pid", json!({})), ("fork", json!({})), ("fork", json!({ "own_group": true }))] {
        pids.push(text(&stage.call(true, tool, arguments).await).to_owned());
    }
    pids.push(text(&stage.call_of(BOB, true, "pid", json!({})).await).to_owned());
    assert_eq!(text(&stage.call_of(ALICE, true, "ignore_sigterm", json!({})).await), "ignored");
    assert!(pids.iter().all(|pid| !is_gone(pid)), "{pids:?}");
    let Stage { site, behind, .. } = stage;
    // The shim continues: the end of the connections ends the processes.
    site.stop().await;
    eventually("all processes are gone", async || pids.iter().all(|pid| is_gone(pid)).then_some(())).await;
    drop(behind);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_the_process_is_reported_at_once() {
    join_all(ERAS.map(async |era| {
        let stage = Stage::stdio(Options::of(era)).await;
        let answer = soon(&stage, false, "exit", json!({})).await;
        assert!(failure(&answer).contains("ended before it answered"), "{answer}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_hidden_between_line_breaks_of_arguments_does_not_reach_the_backend_as_a_message() {
    let hidden = r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"pid","arguments":{}}}"#;
    for stage in Stage::each().await {
        let arguments = format!("{{\"list\":[\n{hidden}\r\n]}}");
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"echo","arguments":{arguments}}}}}"#
        );
        let token = stage.site.setup.tenant.token(ALICE);
        let answer = stage.site.request().bearer_auth(token).body(body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(text(&answer), format!(r#"{{"list":[{hidden}]}}"#), "{}", stage.name());
        let calls = stage.received().await.into_iter().filter(|one| one.message["params"]["name"] == "pid").count();
        assert_eq!(calls, 0, "{}", stage.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_callers_session_id_has_no_effect() {
    let stage = Stage::http(Options::of(Era::Legacy)).await;
    let session = |answer: &Value| answer["result"]["structuredContent"]["headers"]["mcp-session-id"].clone();
    let alices = session(&stage.call(true, "whoami", json!({})).await);
    let stolen = alices.as_str().unwrap();
    for is_modern in [true, false] {
        let call = stage.request_of(BOB, is_modern, "tools/call", json!({ "name": "whoami", "arguments": {} }));
        let bobs = session(&answer(call.header("mcp-session-id", stolen)).await);
        assert!(bobs.is_string() && bobs != alices, "{bobs}");
    }
    let (site, token) = (&stage.site, stage.site.setup.tenant.token(BOB));
    for request in [site.http.delete(site.url("/mcp")), site.http.get(site.url("/mcp"))] {
        let request = request.bearer_auth(&token).header("mcp-session-id", stolen);
        assert_eq!(request.send().await.unwrap().status(), 405);
    }
    assert_eq!(session(&stage.call(false, "whoami", json!({})).await), alices, "her session continues");
}
