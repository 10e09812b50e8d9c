//! Tests of frequent faults of gateways in front of third-party MCP servers, each with its result here.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};
use stock_backends::scripted::{Era, Options};
use tokio::time::{Instant, timeout};

use super::puppet::{Puppet, described, status, told};
use super::sessions::{free_port, process};
use super::stage::{ERAS, Received, Stage, answer, message, request, text};
use super::{over_http, setup};
use crate::harness::{HOST, PATIENCE, eventually};
use crate::tenant::{ALICE, BOB};

// The operator's tests cover rollouts under load: they replace pods during calls.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_client_to_alternating_replicas_are_answered() {
    for era in ERAS {
        let stage = Stage::http(Options::of(era)).await;
        let other = stage.site.another().await;
        let http = Client::builder().no_proxy().resolve(HOST, other.address()).timeout(PATIENCE).build().unwrap();
        for number in 0..6 {
            let params = json!({ "name": "echo", "arguments": { "number": number } });
            let mut call = stage.request(number % 4 < 2, "tools/call", params).build().unwrap();
            call.headers_mut().insert("mcp-session-id", "of-whichever-replica".parse().unwrap());
            let answer = match number % 2 {
                0 => stage.site.http.execute(call).await.unwrap(),
                _ => {
                    call.url_mut().set_port(Some(other.address().port())).unwrap();
                    http.execute(call).await.unwrap()
                }
            };
            assert_eq!(text(&message(answer).await), format!(r#"{{"number":{number}}}"#), "{era:?}");
        }
        other.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_in_404_is_initialized_again_without_the_clients_notice() {
    let stage = Stage::http(Options::default()).await;
    assert_eq!(text(&stage.call(false, "forget_session", json!({})).await), "forgotten");
    for is_modern in [false, true] {
        assert_eq!(text(&stage.call(is_modern, "echo", json!({})).await), "{}");
        stage.scripted().forget_sessions();
    }
}

// The operator derives BackendReady from this status.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_backend_is_reported_in_the_status_and_to_callers_until_it_is_back() {
    join_all(ERAS.map(async |era| {
        let port = free_port();
        let mut backend = process(era, port).await;
        let site = setup(over_http(port, "/mcp"), None, &["echo"]).start().await;
        let works = async |expected: bool| {
            let status = async || site.status().await.backend.filter(|backend| backend.works == Some(expected));
            eventually(&format!("{era:?} works: {expected}"), status).await
        };
        works(true).await;
        let call = || request(&site, ALICE, true, "tools/call", json!({ "name": "echo" }));
        assert_eq!(text(&answer(call()).await), "{}");
        backend.kill().await.unwrap();
        let begun = Instant::now();
        let refused = call().send().await.unwrap();
        assert_eq!(refused.status(), 503);
        assert!(message(refused).await["message"].as_str().unwrap().contains("cannot be reached"));
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        let message = works(false).await.message.unwrap();
        assert!(message.contains("look at the log of the container"), "{message}");
        let _again = process(era, port).await;
        works(true).await;
        assert_eq!(text(&answer(call()).await), "{}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_leave_one_process_for_each_caller_and_none_when_the_server_ends() {
    let stage = Stage::stdio(Options::default()).await;
    let pids = async |user: &str| {
        let calls = (0..20).map(|at| stage.call_of(user, at % 2 == 0, "pid", json!({})));
        HashSet::<String>::from_iter(join_all(calls).await.iter().map(|answer| text(answer).to_owned()))
    };
    let all = [pids(ALICE).await, pids(BOB).await];
    assert_eq!(all.each_ref().map(HashSet::len), [1, 1]);
    let Stage { site, behind, .. } = stage;
    site.stop().await;
    let gone = |pid: &String| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    eventually("all are gone", async || all.iter().flatten().all(gone).then_some(())).await;
    drop(behind);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_checks_its_host_sees_loopback_for_every_public_host() {
    let puppet = Puppet::start(|received| match received.headers["host"].starts_with("127.0.0.1:") {
        true if received.method() == "tools/list" => {
            told(received, r#""result":{"tools":[{"name":"a","inputSchema":{}}]}"#)
        }
        true if received.method() == "tools/call" => {
            told(received, r#""result":{"content":[{"type":"text","text":"in"}]}"#)
        }
        true if received.method().ends_with("/list") => {
            told(received, r#""result":{"prompts":[],"resources":[],"resourceTemplates":[]}"#)
        }
        true => described(received),
        false => status(421),
    })
    .await;
    let site = puppet.site(&["a"]).await;
    for is_modern in [true, false] {
        let called = answer(request(&site, ALICE, is_modern, "tools/call", json!({ "name": "a" }))).await;
        assert_eq!(text(&called), "in", "{called}");
    }
    assert!(puppet.received().iter().all(|one| !one.headers.contains_key("origin")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_call_is_kept_alive_by_comments_and_answered() {
    let stages = Stage::each().await;
    join_all(stages.iter().flat_map(|stage| [(stage, true), (stage, false)]).map(async |(stage, is_modern)| {
        let params = json!({ "name": "slow", "arguments": { "signal": format!("go {is_modern}") } });
        let mut response = stage.request(is_modern, "tools/call", params).send().await.unwrap();
        let first = response.chunk().await.unwrap().unwrap();
        assert_eq!(&*first, b": keep-alive\n\n", "{}", stage.name());
        stage.call(is_modern, "release", json!({ "signal": format!("go {is_modern}") })).await;
        let answer = message(response).await;
        assert_eq!(text(&answer), "released", "{}", stage.name());
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_call_and_list_wait_for_a_backend_that_answers_nothing_for_3_seconds_and_succeed() {
    let all = ERAS.into_iter().flat_map(|era| [(era, true), (era, false)]).map(async |(era, is_http)| {
        let (begun, slow) = (Instant::now(), Options { slow_start: 3_000, ..Options::of(era) });
        let stage = if is_http { Stage::http(slow).await } else { Stage::stdio(slow).await };
        let call = stage.call(true, "echo", json!({}));
        let listed = stage.ask(false, "tools/list", json!({}));
        let (called, listed) = timeout(PATIENCE, async { tokio::join!(call, listed) }).await.unwrap();
        assert_eq!(text(&called), "{}", "{}", stage.name());
        assert!(listed["result"]["tools"].is_array(), "{} {listed}", stage.name());
        assert!(begun.elapsed() >= Duration::from_secs(3), "{} was not slow", stage.name());
    });
    join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_needs_a_session_id_although_the_backend_demands_one() {
    let stage = Stage::http(Options::of(Era::Legacy)).await;
    for session in [None, Some("unknown")] {
        let mut call = stage.request(false, "tools/call", json!({ "name": "whoami" }));
        if let Some(session) = session {
            call = call.header("mcp-session-id", session);
        }
        let response = call.send().await.unwrap();
        assert_eq!(response.headers().get("mcp-session-id"), None, "the backend's session is ours");
        let told = message(response).await;
        let sent = &told["result"]["structuredContent"]["headers"]["mcp-session-id"];
        assert!(sent.is_string() && *sent != "unknown", "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_refuses_get_receives_it_once_for_each_session_and_clients_are_refused_too() {
    let puppet = Puppet::start(|received: &Received| {
        let mut response = match received.method() {
            "initialize" => {
                let result = json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {} } });
                told(received, &format!(r#""result":{result}"#))
            }
            "tools/list" => told(received, r#""result":{"tools":[{"name":"a","inputSchema":{}}]}"#),
            "tools/call" => told(received, r#""result":{"content":[{"type":"text","text":"in"}]}"#),
            _ => described(received),
        };
        response.headers_mut().insert("mcp-session-id", "one".parse().unwrap());
        if received.method() == "server/discover" {
            response = status(400);
        }
        response
    })
    .await;
    let site = puppet.site(&["a"]).await;
    let call = async || answer(request(&site, ALICE, false, "tools/call", json!({ "name": "a" }))).await;
    assert_eq!(text(&call().await), "in");
    eventually("both sessions have asked", async || (puppet.gets() >= 2).then_some(())).await;
    assert_eq!(text(&call().await), "in");
    assert_eq!(puppet.gets(), 2, "one by the probe, one by Alice");
    let token = site.setup.tenant.token(ALICE);
    let get = site.http.get(site.url("/mcp")).bearer_auth(token).header("accept", "text/event-stream");
    let refused = get.send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["allow"].to_str().unwrap()), (405, "POST"));
}

// The assertion and the token of the user have their own tests. Without either, users do not share state.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_knows_no_users_has_a_process_for_each_and_never_the_users_token() {
    let stage = Stage::stdio(Options::default()).await;
    let of = async |user: &str| {
        let (pid, told) = tokio::join!(
            stage.call_of(user, true, "pid", json!({})),
            stage.call_of(user, true, "received", json!({})),
        );
        (text(&pid).to_owned(), told)
    };
    let ((alices, told_alice), (bobs, told_bob)) = tokio::join!(of(ALICE), of(BOB));
    assert_ne!(alices, bobs);
    for (user, told) in [(ALICE, told_alice), (BOB, told_bob)] {
        let token = stage.site.setup.tenant.token(user);
        let (header, _) = token.split_once('.').unwrap();
        let told = Value::to_string(&told);
        assert!(!told.contains(header) && !told.contains("contoso.com"), "{told}");
    }
}
