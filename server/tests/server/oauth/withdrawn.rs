//! Tests of withdrawals with immediate effect: a client, leaked keys, sessions before a time.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use mcp_entra_policy::KeyEpoch;
use serde_json::json;

use super::mcp_client::{McpClient, error};
use super::site::{OAuthSetup, OAuthSite};
use crate::harness::eventually;
use crate::tenant::ALICE;

#[tokio::test]
async fn keys_from_before_a_compromise_are_invalid_once_the_policy_names_it() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let alice = client.sign_in(ALICE).await;
    let mut policy = site.site.setup.policy.clone();
    policy.compromised_keys = Some("2026-11-29".to_owned());
    site.site.setup.write_policy(&policy);
    let refused = async || {
        let answer = site.site.call(&alice.access_token, "get_user_details", json!({})).await;
        (answer.status() == 401).then_some(())
    };
    eventually("the token is refused", refused).await;
    assert_eq!(error(client.refresh(&alice.refresh_token).await).await, "temporarily_unavailable");
    assert_eq!(site.http.get(client.authorize(&[])).send().await.unwrap().status(), 503);
    // Other keys verify tokens of Entra.
    let direct = site.site.setup.tenant.token(ALICE);
    assert_eq!(site.site.call(&direct, "get_user_details", json!({})).await.status(), 200);
}

#[tokio::test]
async fn the_first_token_of_another_key_is_logged() {
    let mut setup = OAuthSetup::new().await;
    let soon = jiff::Timestamp::now().as_second() + 2;
    setup.server().keys.epochs.push(KeyEpoch { number: 2, used_from: soon });
    let site = setup.start().await;
    let client = McpClient::register(&site).await;
    let rotated = async || {
        client.sign_in(ALICE).await;
        site.site.audit().into_iter().find(|line| line["reason"] == "keys_rotated")
    };
    eventually("a token of the next key", rotated).await;
    client.sign_in(ALICE).await;
    let lines = site.site.audit().into_iter().filter(|line| line["reason"] == "keys_rotated").count();
    assert_eq!(lines, 1);
}

#[tokio::test]
async fn keys_that_were_made_after_the_compromise_serve() {
    let mut setup = OAuthSetup::new().await;
    setup.server().keys.after_compromise = Some("2026-11-29".to_owned());
    setup.setup.policy.compromised_keys = Some("2026-11-29".to_owned());
    let site = setup.start().await;
    let alice = McpClient::register(&site).await.sign_in(ALICE).await;
    assert_eq!(site.site.call(&alice.access_token, "get_user_details", json!({})).await.status(), 200);
}

#[tokio::test]
async fn sessions_from_before_a_time_end_for_good_although_the_time_is_removed_later() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let alice = client.sign_in(ALICE).await;
    let mut policy = site.site.setup.policy.clone();
    policy.revoke_sessions_before = Some(jiff::Timestamp::now().as_second() + 60);
    site.site.setup.write_policy(&policy);
    let refused = async || {
        let answer = site.site.call(&alice.access_token, "get_user_details", json!({})).await;
        (answer.status() == 401).then_some(())
    };
    eventually("the token is refused", refused).await;
    assert_eq!(error(client.refresh(&alice.refresh_token).await).await, "invalid_grant");
    policy.revoke_sessions_before = None;
    site.site.setup.write_policy(&policy);
    let new = async || {
        let token = client.sign_in(ALICE).await.access_token;
        (site.site.call(&token, "get_user_details", json!({})).await.status() == 200).then_some(())
    };
    eventually("new sessions begin", new).await;
    assert_eq!(error(client.refresh(&alice.refresh_token).await).await, "invalid_grant");
    let answer = site.site.call(&alice.access_token, "get_user_details", json!({})).await;
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn a_client_with_an_invalid_registration_is_refused_before_its_token_is_checked() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let alice = client.sign_in(ALICE).await;
    let unknown = McpClient::known(&site, "AQAAAAFunknown");
    for answer in [unknown.refresh(&alice.refresh_token).await, unknown.redeem("code").await] {
        assert_eq!(answer.status(), 401);
        assert_eq!(error(answer).await, "invalid_client");
    }
    // Its own client still has it.
    assert_eq!(client.refresh(&alice.refresh_token).await.status(), 200);
}

#[tokio::test]
async fn a_client_that_refreshes_after_a_demand_for_more_scopes_has_to_sign_in() {
    let mut setup = OAuthSetup::new().await;
    setup.setup.policy.grants[0].require.authentication_context = Some("c1".to_owned());
    let site = setup.start().await;
    let client = McpClient::register(&site).await;
    let alice = client.sign_in(ALICE).await;
    assert_eq!(site.site.call(&alice.access_token, "get_user_details", json!({})).await.status(), 403);
    assert_eq!(error(client.refresh(&alice.refresh_token).await).await, "invalid_grant");
}

#[tokio::test]
async fn a_request_whose_session_is_revoked_while_its_body_comes_is_refused() {
    let site = OAuthSite::new().await;
    let token = McpClient::register(&site).await.sign_in(ALICE).await.access_token;
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_user_details"}}"#;
    let (first, rest) = call.split_at(20);
    let (sender, parts) = futures::channel::mpsc::unbounded();
    let send = |part: &'static str| sender.unbounded_send(Ok::<_, Infallible>(Frame::data(Bytes::from(part)))).unwrap();
    let body = reqwest::Body::wrap(StreamBody::new(parts));
    let request = tokio::spawn(site.site.request().bearer_auth(&token).body(body).send());
    send(first);
    let mut policy = site.site.setup.policy.clone();
    policy.revoke_sessions_before = Some(jiff::Timestamp::now().as_second() + 60);
    // The server checks the token before the policy. It polls for a policy twice a second.
    site.site.setup.write_policy(&policy);
    let refused = async || {
        let answer = site.site.call(&token, "get_user_details", json!({})).await;
        (answer.status() == 401).then_some(())
    };
    eventually("the token is refused", refused).await;
    send(rest);
    drop(sender);
    let answer = request.await.unwrap().unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(site.site.audit_of(&answer).await["reason"], "session_ended");
}
