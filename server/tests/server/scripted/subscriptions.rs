//! Tests of clients that subscribe to notifications.

use mcp_entra_policy::Pattern;
use reqwest::Response;
use serde_json::{Value, json};

use super::{Events, Stage};
use crate::harness::{eventually, grant_to_readers};
use crate::tenant::{ALICE, BOB};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

async fn listen(stage: &Stage, user: &str, notifications: Value) -> Response {
    let token = stage.site.setup.tenant.token(user);
    listen_by(stage, &token, notifications).await
}

async fn listen_by(stage: &Stage, token: &str, notifications: Value) -> Response {
    let params = json!({ "notifications": notifications });
    stage.request_by(token, "subscriptions/listen", params, true).send().await.unwrap()
}

/// A stream that has begun.
async fn subscribed(stage: &Stage, notifications: Value) -> Events {
    let mut events = Events::of(listen(stage, ALICE, notifications).await);
    assert_eq!(events.next().await.unwrap()["method"], "notifications/subscriptions/acknowledged");
    events
}

#[tokio::test]
async fn a_stream_begins_with_the_notifications_that_the_caller_gets() {
    let stage = Stage::new().await;
    let asked = json!({
        "toolsListChanged": true, "promptsListChanged": false,
        "resourceSubscriptions": ["memo://one", "secret://two", "memo://nothing"],
    });
    let first = Events::of(listen(&stage, ALICE, asked).await).next().await.unwrap();
    let expected = json!({
        "_meta": { SUBSCRIPTION: 7 },
        "notifications": { "toolsListChanged": true, "resourceSubscriptions": ["memo://one"] },
    });
    assert_eq!((&first["method"], &first["params"]), (&json!("notifications/subscriptions/acknowledged"), &expected));
}

#[tokio::test]
async fn only_affected_clients_are_notified_of_a_policy_that_removes_a_tool() {
    let stage = Stage::new().await;
    let tools = json!({ "toolsListChanged": true });
    let mut affected = subscribed(&stage, tools.clone()).await;
    // bob has no role: his list is empty before and after.
    let mut other = Events::of(listen(&stage, BOB, tools.clone()).await);
    other.next().await.unwrap();
    let mut of_prompts = subscribed(&stage, json!({ "promptsListChanged": true })).await;

    stage.change_policy(|policy| policy.grants[0].allow.tools = vec![Pattern("echo".into())]);
    let message = affected.next().await.unwrap();
    assert_eq!(message["method"], "notifications/tools/list_changed");
    assert_eq!(message["params"]["_meta"][SUBSCRIPTION], 7);
    assert_eq!(stage.site.tools(&stage.site.setup.tenant.token(ALICE)).await, ["echo"]);

    // The next notification of the unaffected clients is about something else.
    stage.change_policy(|policy| policy.grants = vec![grant_to_readers(&[])]);
    assert_eq!(of_prompts.next().await.unwrap()["method"], "notifications/prompts/list_changed");
    stage.change_policy(|policy| policy.revoke_sessions_before = Some(1));
    let last = other.next().await.unwrap();
    assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!(7), &json!("complete")), "{last}");
}

#[tokio::test]
async fn clients_are_notified_of_a_changed_offer() {
    let stage = Stage::new().await;
    let mut events = subscribed(&stage, json!({ "toolsListChanged": true, "resourcesListChanged": true })).await;
    stage.offer.offer_tools(&["echo"]);
    assert_eq!(events.next().await.unwrap()["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn clients_with_read_access_by_the_current_policy_are_notified_of_a_changed_resource() {
    let stage = Stage::new().await;
    let asked = json!({ "resourcesListChanged": true, "resourceSubscriptions": ["memo://one"] });
    let mut events = subscribed(&stage, asked).await;
    stage.offer.update("secret://two");
    stage.offer.update("memo://one");
    let message = events.next().await.unwrap();
    assert_eq!(
        (&message["method"], &message["params"]["uri"]),
        (&json!("notifications/resources/updated"), &json!("memo://one"))
    );
    stage.change_policy(|policy| policy.grants[0].allow.resources = vec![]);
    assert_eq!(events.next().await.unwrap()["method"], "notifications/resources/list_changed");
    stage.offer.update("memo://one");
    stage.change_policy(|_| ());
    assert_eq!(events.next().await.unwrap()["method"], "notifications/resources/list_changed", "it was told");
    stage.offer.update("memo://one");
    assert_eq!(events.next().await.unwrap()["method"], "notifications/resources/updated");
}

#[tokio::test]
async fn a_stream_ends_with_a_result_at_the_end_of_the_token() {
    let stage = Stage::new().await;
    let tenant = &stage.site.setup.tenant;
    let mut claims = tenant.claims(ALICE);
    claims["exp"] = json!(claims["iat"].as_i64().unwrap() + 3);
    let token = tenant.sign(&json!({}), &claims);
    let mut events = Events::of(listen_by(&stage, &token, json!({ "toolsListChanged": true })).await);
    let messages = events.rest().await;
    assert_eq!(messages.len(), 2, "{messages:?}");
    let expected = (&json!(7), &json!(7), &json!("complete"));
    let result = &messages[1]["result"];
    assert_eq!((&messages[1]["id"], &result["_meta"][SUBSCRIPTION], &result["resultType"]), expected);
}

#[tokio::test]
async fn an_expired_token_within_the_clock_skew_cannot_listen() {
    let stage = Stage::new().await;
    let tenant = &stage.site.setup.tenant;
    let mut claims = tenant.claims(ALICE);
    let now = claims["iat"].as_i64().unwrap();
    (claims["iat"], claims["nbf"], claims["exp"]) = (json!(now - 100), json!(now - 100), json!(now - 10));
    let token = tenant.sign(&json!({}), &claims);
    let refused = listen_by(&stage, &token, json!({ "toolsListChanged": true })).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(stage.site.audit_of(&refused).await["reason"], "expired");
    let listed = stage.request_by(&token, "tools/list", json!({}), true).send().await.unwrap();
    assert_eq!(listed.status(), 200, "a request of it is answered");
}

#[tokio::test]
async fn a_stream_ends_with_a_result_when_the_server_stops() {
    let stage = Stage::new().await;
    let mut events = subscribed(&stage, json!({ "toolsListChanged": true })).await;
    let stopping = tokio::spawn(stage.site.stop());
    assert_eq!(events.rest().await.last().unwrap()["result"]["resultType"], "complete");
    let log = stopping.await.unwrap();
    assert!(log.contains("\"method\":\"subscriptions/listen\""), "{log}");
}

#[tokio::test]
async fn each_caller_has_its_own_maximum_number_of_streams() {
    let stage = Stage::new().await;
    let tools = json!({ "toolsListChanged": true });
    let mut streams = vec![];
    for _ in 0..16 {
        streams.push(subscribed(&stage, tools.clone()).await);
    }
    let refused = listen(&stage, ALICE, tools.clone()).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(stage.site.audit_of(&refused).await["reason"], "too_many_streams");
    assert_eq!(listen(&stage, BOB, tools.clone()).await.status(), 200);
    streams.pop();
    let again = async || (listen(&stage, ALICE, tools.clone()).await.status() == 200).then_some(());
    eventually("the place is free again", again).await;
}

#[tokio::test]
async fn a_client_without_event_streams_or_of_an_earlier_revision_cannot_listen() {
    let stage = Stage::new().await;
    let mut request = stage.request("subscriptions/listen", json!({ "notifications": {} }), true).build().unwrap();
    request.headers_mut().insert("accept", "application/json".parse().unwrap());
    assert_eq!(stage.site.http.execute(request).await.unwrap().status(), 406);
    let legacy = stage.send(stage.request("subscriptions/listen", json!({ "notifications": {} }), false)).await;
    assert_eq!(legacy["error"]["code"], -32601, "{legacy}");
}
