//! Tests of calls that are answered by an event stream.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Events, Stage};
use crate::harness::{PATIENCE, eventually};

fn methods(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["method"].as_str().unwrap_or("")).collect()
}

#[tokio::test]
async fn a_call_sends_its_progress_to_a_client_with_a_progress_token() {
    let stage = Stage::new().await;
    for is_modern in [true, false] {
        let params = json!({ "name": "tells", "_meta": { "progressToken": "p" } });
        let mut events = Events::of(stage.request("tools/call", params, is_modern).send().await.unwrap());
        let messages = events.rest().await;
        let progress: Vec<&Value> =
            messages.iter().filter(|message| message["method"] == "notifications/progress").collect();
        let params = |at: usize| progress[at]["params"].clone();
        assert_eq!(params(0), json!({ "progressToken": "p", "progress": 1.0, "message": "begun" }));
        assert_eq!(params(1), json!({ "progressToken": "p", "progress": 5.0, "total": 5.0 }));
        assert_eq!(progress.len(), 2, "progress increases with each notification");
        let last = messages.last().unwrap();
        assert_eq!((&last["id"], &last["result"]["structuredContent"]), (&json!(7), &json!({ "told": true })));
    }
}

#[tokio::test]
async fn a_call_sends_log_messages_only_to_a_client_that_requested_them() {
    let stage = Stage::new().await;
    let logs = |messages: &[Value]| -> Vec<Value> {
        let logs = messages.iter().filter(|message| message["method"] == "notifications/message");
        logs.map(|message| message["params"].clone()).collect()
    };
    let error = json!({ "level": "error", "data": { "went": "wrong" } });
    let params = json!({ "name": "tells", "_meta": { "io.modelcontextprotocol/logLevel": "warning" } });
    let mut events = Events::of(stage.request("tools/call", params, true).send().await.unwrap());
    assert_eq!(logs(&events.rest().await), std::slice::from_ref(&error));
    // Earlier revisions set the level in a session, and there is no session: everything except messages for developers
    // is sent.
    let mut events = Events::of(stage.request("tools/call", json!({ "name": "tells" }), false).send().await.unwrap());
    assert_eq!(logs(&events.rest().await), [json!({ "level": "info", "data": "so far" }), error]);
    // Nothing was requested: the answer is JSON.
    let answer = stage.ask("tools/call", json!({ "name": "tells" })).await;
    assert_eq!(answer["result"]["structuredContent"], json!({ "told": true }));
}

#[tokio::test]
async fn a_client_without_support_for_event_streams_always_gets_json() {
    let stage = Stage::new().await;
    let params = json!({ "name": "tells", "_meta": { "progressToken": "p" } });
    let mut request = stage.request("tools/call", params, true).build().unwrap();
    request.headers_mut().insert("accept", "application/json".parse().unwrap());
    let response = stage.site.http.execute(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.json::<Value>().await.unwrap()["result"]["structuredContent"], json!({ "told": true }));
}

#[tokio::test]
async fn a_call_that_takes_longer_than_a_quarter_of_a_minute_is_kept_alive_by_an_event_stream() {
    let stage = Stage::new().await;
    let mut response = stage.request("tools/call", json!({ "name": "waits" }), true).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert_eq!(&*first, b": keep-alive\n\n", "the stream is silent at its beginning");
    stage.offer.goes_on.notify_one();
    let messages = Events::of(response).rest().await;
    assert_eq!((methods(&messages), &messages[0]["id"]), (vec![""], &json!(7)));
}

#[tokio::test]
async fn a_sign_in_required_during_a_stream_is_an_error_message_and_a_challenge_to_the_next_call() {
    let stage = Stage::new().await;
    let token = stage.site.setup.tenant.token(crate::tenant::ALICE);
    let params = json!({ "name": "waits_to_sign_in", "_meta": { "progressToken": 1 } });
    let call = stage.request_by(&token, "tools/call", params, true);
    let mut events = Events::of(call.send().await.unwrap());
    assert_eq!(events.next().await.unwrap()["method"], "notifications/progress");
    stage.offer.goes_on.notify_one();
    let answer = events.next().await.unwrap();
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert_eq!(answer["result"]["content"][0]["text"], "Sign in again.", "{answer}");
    assert_eq!(events.next().await, None);

    let echo = |token: &str| stage.request_by(token, "tools/call", json!({ "name": "echo" }), true).send();
    let other = stage.site.setup.tenant.token(crate::tenant::ALICE);
    assert_eq!(echo(&other).await.unwrap().status(), 200, "a token of another sign-in gets no challenge");
    let challenge = echo(&token).await.unwrap();
    assert_eq!(challenge.status(), 401);
    assert_eq!(stage.site.audit_of(&challenge).await["reason"], "sign_in_needed");
    assert_eq!(echo(&token).await.unwrap().status(), 200, "it is requested once");
}

#[tokio::test]
async fn a_client_of_2026_07_28_that_closes_its_stream_ends_the_call() {
    let stage = Stage::new().await;
    let (hanging, ended) = oneshot::channel();
    *stage.offer.hanging.lock().unwrap() = Some(hanging);
    let mut response = stage.request("tools/call", json!({ "name": "hangs" }), true).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    assert!(tokio::time::timeout(PATIENCE, ended).await.expect("the call continues").is_err());
    let line = async || stage.site.audit().into_iter().find(|line| line["tool"] == "hangs");
    let line = eventually("the line is written", line).await;
    assert_eq!((&line["status"], &line["reason"]), (&json!(200), &json!("granted")));
}

#[tokio::test]
async fn a_cancellation_over_http_is_accepted_and_ignored() {
    let stage = Stage::new().await;
    let mut call = stage.request("tools/call", json!({ "name": "waits", "_meta": { "progressToken": 1 } }), false);
    call = call.timeout(PATIENCE);
    let call = tokio::spawn(call.send());
    eventually("the call has begun", async || (stage.calls() == 1).then_some(())).await;
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
    let token = stage.site.setup.tenant.token(crate::tenant::ALICE);
    let cancelled = stage.site.request().bearer_auth(token).body(cancel.to_string()).send().await.unwrap();
    assert_eq!(cancelled.status(), 202);
    stage.offer.goes_on.notify_one();
    let answer: Value = call.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(answer["result"]["structuredContent"], json!({ "waited": true }), "ids of two clients may be the same");
}
