//! Tests of injected faults: connections, bodies, keys, times.

use std::time::{Duration, Instant};

use entra_emulator::{Configuration, EntraEmulator, Fault, FaultKind, Host, Matcher, sign_in::http_client};
use serde_json::{Value, json};

use crate::world::{EMULATOR, ON_BEHALF_OF, World, claims, now, part};

fn inject(world: &World, host: Host, kind: FaultKind) {
    let matcher = Matcher { host: Some(host), tenant: Some(world.tenant), ..Matcher::default() };
    world.control().inject(Fault { matcher, times: 1, kind }).unwrap();
}

async fn me(world: &World, token: &str) -> reqwest::Result<Value> {
    world.http.get(format!("{}/v1.0/me", EMULATOR.graph())).bearer_auth(token).send().await?.json().await
}

#[tokio::test]
async fn a_connection_can_be_cut_instead_of_an_answer() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read");
    inject(&world, Host::Graph, FaultKind::Disconnect);
    let error = me(&world, &token).await.unwrap_err();
    assert!(!error.is_timeout() && error.status().is_none(), "{error:?}");
    assert_eq!(world.requests().pop().unwrap().status, 0, "the request was logged without an answer");
    assert_eq!(me(&world, &token).await.unwrap()["id"], json!(world.alice));
}

#[tokio::test]
async fn an_answer_can_be_lost_after_the_work_is_done() {
    let world = World::new();
    let token = world.graph_token("alice", "Mail.Send");
    inject(&world, Host::Graph, FaultKind::LoseAnswer);
    let body = json!({"message": {"toRecipients": [{"emailAddress": {"address": "bob@contoso.com"}}]}});
    let url = format!("{}/v1.0/me/sendMail", EMULATOR.graph());
    let error = world.http.post(url).bearer_auth(&token).json(&body).send().await.unwrap_err();
    assert!(!error.is_timeout() && error.status().is_none(), "{error:?}");
    assert_eq!(world.requests().pop().unwrap().status, 0);
    let sent = world.control().sent_messages().into_iter().filter(|sent| sent.tenant == world.tenant);
    assert_eq!(sent.count(), 1);
}

#[tokio::test]
async fn a_body_can_end_before_its_announced_length() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read");
    inject(&world, Host::Graph, FaultKind::Truncate);
    let url = format!("{}/v1.0/me", EMULATOR.graph());
    let response = world.http.get(url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.content_length().unwrap() > 0);
    assert!(response.bytes().await.is_err());
    assert_eq!(me(&world, &token).await.unwrap()["id"], json!(world.alice));
}

#[tokio::test]
async fn a_request_of_a_disconnected_client_is_logged_too() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read");
    inject(&world, Host::Graph, FaultKind::Delay { milliseconds: 600_000 });
    let gave_up = tokio::time::timeout(Duration::from_millis(200), me(&world, &token)).await;
    assert!(gave_up.is_err());
    let deadline = Instant::now() + Duration::from_secs(10);
    while world.requests().is_empty() {
        assert!(Instant::now() < deadline, "the abandoned request is not in the log");
        tokio::task::yield_now().await;
    }
    assert_eq!(world.requests().pop().unwrap().status, 0);
}

#[tokio::test]
async fn every_form_of_retry_after_can_be_sent() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read");
    for retry_after in [Some("2"), Some("2.128"), Some("Wed, 21 Oct 2026 07:28:00 GMT"), Some("nonsense"), None] {
        let headers = retry_after.map(|value| ("Retry-After".to_owned(), value.to_owned())).into_iter().collect();
        inject(&world, Host::Graph, FaultKind::Status { status: 429, headers, body: String::new() });
        let url = format!("{}/v1.0/me", EMULATOR.graph());
        let response = world.http.get(url).bearer_auth(&token).send().await.unwrap();
        assert_eq!(response.status(), 429);
        let sent = response.headers().get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(sent, retry_after);
    }
}

#[tokio::test]
async fn a_closed_host_refuses_connections_until_it_is_opened() {
    // A separate emulator, since all tests share the hosts of one.
    let emulator = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let http = http_client(emulator.ca_pem()).unwrap();
    let keys = format!("{}/common/discovery/v2.0/keys", emulator.authority());
    let me = format!("{}/v1.0/me", emulator.graph());
    let ask = async |url: &str| http.get(url).send().await.map(|response| response.status().as_u16());
    assert_eq!(ask(&keys).await.unwrap(), 200);
    emulator.control().close(Host::Authority).await;
    assert!(http_client(emulator.ca_pem()).unwrap().get(&keys).send().await.unwrap_err().is_connect());
    assert_eq!(ask(&me).await.unwrap(), 401, "the other host");
    emulator.control().open(Host::Authority).await;
    assert_eq!(ask(&keys).await.unwrap(), 200);
}

#[tokio::test]
async fn a_withdrawn_key_is_no_longer_published() {
    let world = World::new();
    let before = world.user_token("alice");
    world.control().roll_signing_key(world.tenant).unwrap();
    assert_eq!(world.on_behalf_of(&before, "User.Read").await.0, 200, "rolled, not withdrawn");
    world.control().withdraw_old_signing_keys(world.tenant).unwrap();
    assert_eq!(world.on_behalf_of(&before, "User.Read").await.0, 400);
    let after = world.user_token("alice");
    assert_eq!(world.on_behalf_of(&after, "User.Read").await.0, 200);
    let url = format!("{}/{}/discovery/v2.0/keys", EMULATOR.authority(), world.tenant);
    let set: Value = world.http.get(url).send().await.unwrap().json().await.unwrap();
    let published = |token: &str| {
        let kid = part(token, 0)["kid"].clone();
        set["keys"].as_array().unwrap().iter().any(|key| key["kid"] == kid)
    };
    assert!(published(&after) && !published(&before));
}

#[tokio::test]
async fn the_client_sets_the_lifetime_of_its_tokens() {
    let lives = async |seconds: Option<u32>| {
        let world = World::with(|tenant| tenant.apps[0].access_token_lifetime_seconds = seconds);
        let (_, answer) = world.on_behalf_of(&world.user_token("alice"), "User.Read").await;
        let left = claims(&answer["access_token"])["exp"].as_i64().unwrap() - now();
        assert!((answer["expires_in"].as_i64().unwrap() - left).abs() < 30);
        let exchange = world.requests().pop().unwrap();
        assert_eq!(exchange.grant_type.as_deref(), Some(ON_BEHALF_OF));
        (answer["expires_in"].as_i64().unwrap(), answer.get("refresh_in").and_then(Value::as_i64))
    };
    assert_eq!(lives(None).await, (3599, None));
    assert_eq!(lives(Some(60)).await, (60, None));
    assert_eq!(lives(Some(86_400)).await, (86_400, Some(43_200)));
}

#[tokio::test]
async fn a_new_credential_can_take_effect_late() {
    let world = World::with(|tenant| tenant.apps[2].federated_credentials.clear());
    let control = world.control();
    control.hold_propagation(world.tenant).unwrap();
    control.add_federated_credential(world.tenant, world.daemon, world.credential()).unwrap();
    let code = async || world.app_only(&world.right_assertion()).await.1["error_codes"][0].as_u64();
    assert_eq!(code().await, Some(70025), "the app has no credential yet");
    control.propagate(world.tenant).unwrap();
    assert_eq!(code().await, None);
    control.hold_propagation(world.tenant).unwrap();
    control.remove_federated_credential(world.tenant, world.daemon, "cluster").unwrap();
    assert_eq!(code().await, None, "a removed credential stays effective for a while, too");
    control.propagate(world.tenant).unwrap();
    assert_eq!(code().await, Some(70025));
}

#[tokio::test]
async fn the_log_counts_concurrent_requests() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read");
    let matcher = Matcher { host: Some(Host::Graph), tenant: Some(world.tenant), ..Matcher::default() };
    world.control().inject(Fault { matcher, times: 3, kind: FaultKind::Delay { milliseconds: 2000 } }).unwrap();
    let answers = tokio::join!(me(&world, &token), me(&world, &token), me(&world, &token));
    assert!(answers.0.is_ok() && answers.1.is_ok() && answers.2.is_ok());
    me(&world, &token).await.unwrap();
    let mut concurrent: Vec<usize> = world.requests().iter().map(|request| request.concurrent).collect();
    assert_eq!(concurrent.pop(), Some(1), "after the others");
    concurrent.sort_unstable();
    assert_eq!(concurrent, [1, 2, 3]);
}
