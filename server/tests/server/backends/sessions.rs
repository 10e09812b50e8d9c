//! Tests of a backend's sessions and processes: their owners, their start, and their end.

use std::collections::HashSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use mcp_entra_policy::BackendSessions;
use serde_json::{Value, json};
use stock_backends::Launch;
use stock_backends::scripted::{self, Era, Options};
use tokio::time::{Instant, timeout};

use super::puppet::{Puppet, status, told};
use super::stage::{ERAS, Received, Stage, answer, failure, request, text};
use super::{over_http, setup};
use crate::harness::{PATIENCE, Setup, eventually, eventually_within};
use crate::scripted::Events;
use crate::tenant::{ALICE, BOB};

fn share(setup: &mut Setup) {
    setup.configuration.backend.as_mut().unwrap().sessions = BackendSessions::Shared;
}

/// Returns the processes or sessions of several simultaneous calls of this user.
async fn places(stage: &Stage, user: &str) -> HashSet<String> {
    let tool = if stage.is_http() { "whoami" } else { "pid" };
    let calls = (0..6).map(|at| stage.call_of(user, at % 2 == 0, tool, json!({})));
    let answers = join_all(calls).await.into_iter();
    let place = |answer: Value| match stage.is_http() {
        true => answer["result"]["structuredContent"]["headers"]["mcp-session-id"].to_string(),
        false => text(&answer).to_owned(),
    };
    answers.map(place).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_has_its_own_session_unless_they_share() {
    for is_shared in [false, true] {
        let change = |setup: &mut Setup| {
            if is_shared {
                share(setup)
            }
        };
        let stages = [
            Stage::http_with(Options::default(), change).await,
            Stage::stdio_with(Options::default(), change).await,
            Stage::stdio_with(Options::of(Era::Modern), change).await,
        ];
        for stage in &stages {
            let (alice, bob) = tokio::join!(places(stage, ALICE), places(stage, BOB));
            assert_eq!((alice.len(), bob.len()), (1, 1), "{} {alice:?} {bob:?}", stage.name());
            assert_eq!(alice == bob, is_shared, "{} {alice:?} {bob:?}", stage.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_one_callers_process_is_not_seen_by_another() {
    let stage = Stage::stdio(Options::default()).await;
    stage.call(true, "change_tools", json!({ "what": "description", "notify": true })).await;
    let described = async |user: &str| {
        let listed = answer(stage.request_of(user, true, "tools/list", json!({}))).await;
        let tools = listed["result"]["tools"].as_array().unwrap().clone();
        tools.into_iter().find(|tool| tool["name"] == "add").unwrap()["description"].as_str().unwrap().to_owned()
    };
    let changed = async || described(ALICE).await.contains("secrets").then_some(());
    eventually("Alice's list has changed", changed).await;
    assert!(!described(BOB).await.contains("secrets"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_backend_forgot_is_begun_again_and_the_call_is_answered() {
    let stage = Stage::http(Options::default()).await;
    for is_modern in [true, false] {
        let before = stage.call(is_modern, "whoami", json!({})).await;
        let discovered = stage.received().await.iter().filter(|one| one.method() == "server/discover").count();
        stage.scripted().forget_sessions();
        let after = stage.call(is_modern, "whoami", json!({})).await;
        let session = |answer: &Value| answer["result"]["structuredContent"]["headers"]["mcp-session-id"].clone();
        assert!(session(&after).is_string() && session(&after) != session(&before), "{after}");
        let received = stage.received().await;
        let again = received.iter().filter(|one| one.method() == "server/discover").count();
        assert_eq!(again, discovered, "the era is known");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_read_although_the_backend_forgot_the_session() {
    let stage = Stage::http(Options::default()).await;
    stage.probed().await;
    assert!(stage.ask(true, "tools/list", json!({})).await["result"].is_object());
    let listens = async || (stage.scripted().listeners() >= 2).then_some(());
    eventually("both sessions listen", listens).await;
    let lists = async || stage.received().await.iter().filter(|one| one.method() == "tools/list").count();
    let read = lists().await;
    stage.scripted().announce_lists().await;
    stage.scripted().forget_sessions();
    // Lists that were read half a second ago are still served.
    eventually("the lists are read again", async || {
        let listed = stage.ask(true, "tools/list", json!({})).await;
        assert!(listed["result"].is_object(), "{listed}");
        (lists().await >= read + 4).then_some(())
    })
    .await;
}

/// Starts a backend with a handshake that forgets its session on request. It then answers 400 without an id.
async fn forgetful(calls: &Arc<AtomicUsize>, session: &Arc<Mutex<usize>>) -> Puppet {
    let (calls, session) = (Arc::clone(calls), Arc::clone(session));
    Puppet::start(move |received: &Received| {
        let current = format!("session-{}", session.lock().unwrap());
        let mut response = match received.method() {
            "initialize" => {
                let result = json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} } });
                told(received, &format!(r#""result":{result}"#))
            }
            _ if received.headers.get("mcp-session-id") != Some(&current) => {
                let mut response = status(400);
                *response.body_mut() =
                    r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}"#
                        .to_owned();
                response
            }
            "tools/list" => told(received, r#""result":{"tools":[{"name":"counts","inputSchema":{}}]}"#),
            _ => {
                calls.fetch_add(1, Ordering::SeqCst);
                told(received, r#""result":{"content":[{"type":"text","text":"counted"}]}"#)
            }
        };
        response.headers_mut().insert("mcp-session-id", current.parse().unwrap());
        response
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_refused_by_400_without_an_id_is_begun_again_and_the_call_runs_once() {
    let (calls, session) = (Arc::default(), Arc::default());
    let puppet = forgetful(&calls, &session).await;
    let site = puppet.site(&["counts"]).await;
    for number in 1..=3 {
        let called = answer(request(&site, ALICE, true, "tools/call", json!({ "name": "counts" }))).await;
        assert_eq!(text(&called), "counted", "{called}");
        assert_eq!(calls.load(Ordering::SeqCst), number);
        *session.lock().unwrap() += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_fails_open_calls_at_once_replays_nothing_and_is_over_after_a_pause() {
    join_all(ERAS.map(async |era| {
        let stage = Stage::stdio(Options::of(era)).await;
        let pid = stage.call(true, "pid", json!({})).await;
        let bob = stage.call_of(BOB, true, "pid", json!({})).await;
        let slow = json!({ "name": "slow", "arguments": { "progress_ms": 20 }, "_meta": { "progressToken": 1 } });
        let mut open = Events::of(stage.request(true, "tools/call", slow).send().await.unwrap());
        open.next().await.unwrap();
        let begun = Instant::now();
        let crashed = stage.call(true, "exit_midway", json!({})).await;
        assert!(failure(&crashed).contains("may have had its effect"), "{crashed}");
        let ended = open.rest().await.pop().unwrap();
        assert!(failure(&ended).contains("may have had its effect"), "{ended}");
        assert!(begun.elapsed() < Duration::from_secs(10), "open calls wait: {:?}", begun.elapsed());

        let resting = stage.request(true, "tools/call", json!({ "name": "pid" })).send().await.unwrap();
        assert_eq!(resting.status(), 503, "it rests");
        assert!(resting.headers().contains_key("retry-after"));
        let again = async || {
            let again = stage.call(true, "pid", json!({})).await;
            again["result"]["content"][0]["text"].as_str().map(str::to_owned)
        };
        let again = eventually("it works again", again).await;
        assert_ne!(again, text(&pid));
        for tool in ["exit_midway", "slow"] {
            assert!(stage.received_of("tools/call", tool).await.is_empty(), "{tool} was sent again");
        }
        assert_eq!(text(&stage.call_of(BOB, true, "pid", json!({})).await), text(&bob), "another process continues");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_begins_to_listen_late_is_waited_for() {
    for era in ERAS {
        let port = free_port();
        let site = setup(over_http(port, "/mcp"), None, &["echo"]).start().await;
        let call = request(&site, ALICE, true, "tools/call", json!({ "name": "echo", "arguments": { "a": 1 } }));
        let call = tokio::spawn(answer(call));
        let away = async || site.status().await.backend.filter(|backend| backend.works.is_none());
        eventually("the probe has begun", away).await;
        // The program starts, but does not listen yet.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let backend = tokio::spawn(scripted::serve_http(Options::of(era), port));
        let called = timeout(PATIENCE, call).await.unwrap().unwrap();
        assert_eq!(text(&called), r#"{"a":1}"#, "{called}");
        backend.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_answers_late_is_waited_for() {
    join_all(ERAS.map(async |era| {
        let stage = Stage::stdio(Options { slow_start: 1_500, ..Options::of(era) }).await;
        let called = stage.call(false, "echo", json!({ "a": 1 })).await;
        assert_eq!(text(&called), r#"{"a":1}"#, "{called}");
    }))
    .await;
}

/// Starts a backend as a process, and returns when it listens at this port. Dropping this ends it.
pub(super) async fn process(era: Era, port: u16) -> tokio::process::Child {
    let mut launch = Options::of(era).launch().unwrap();
    launch.args.extend(["--port".to_owned(), port.to_string()]);
    started(&launch, port).await
}

/// Starts this command, and returns when it listens at this port. Dropping this ends it.
pub(super) async fn started(launch: &Launch, port: u16) -> tokio::process::Child {
    let mut child = launch.command().stdout(Stdio::null()).spawn().unwrap();
    eventually_within(3 * PATIENCE, "it listens", async || {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it listened at port {port}");
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_call_after_a_backend_over_http_was_started_again_is_answered() {
    for era in ERAS {
        let port = free_port();
        let mut first = process(era, port).await;
        let site = setup(over_http(port, "/mcp"), None, &["echo"]).start().await;
        let call = async || answer(request(&site, ALICE, true, "tools/call", json!({ "name": "echo" }))).await;
        assert_eq!(text(&call().await), "{}");
        first.kill().await.unwrap();
        let _second = process(era, port).await;
        assert_eq!(text(&call().await), "{}", "{era:?}");
    }
}

/// Returns a free port for a process that is started later. No other test gets it, and no connection, since those take
/// ports from 32768.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
