//! Tests of a user's sign-in through a client, and of the client's tool calls.

use serde_json::json;

use super::mcp_client::{McpClient, error, tokens};
use super::site::OAuthSite;
use crate::tenant::{ALICE, BOB};

#[tokio::test]
async fn a_user_signs_in_through_a_client_that_only_has_the_url_and_uses_the_tools_of_their_role() {
    let site = OAuthSite::new().await;
    let resource = site.document("/.well-known/oauth-protected-resource/mcp").await;
    assert_eq!(resource["authorization_servers"], json!([site.url("")]));
    let metadata = site.document("/.well-known/oauth-authorization-server/mcp").await;
    assert_eq!(metadata["issuer"], site.url(""));
    let client = McpClient::register(&site).await;
    let alice = client.sign_in(ALICE).await;
    assert_eq!(alice.scope, "mcp.access");
    assert!(!site.site.tools(&alice.access_token).await.is_empty());
    let answer = site.site.call(&alice.access_token, "get_user_details", json!({})).await;
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(answer["result"]["structuredContent"]["displayName"], "Alice Adams", "{answer}");
    let bob = McpClient::register(&site).await.sign_in(BOB).await;
    assert!(site.site.tools(&bob.access_token).await.is_empty());
    assert_eq!(site.audited("session_begun").await["objectId"], site.site.setup.tenant.user_id(ALICE).to_string());
}

#[tokio::test]
async fn a_refresh_brings_new_tokens_once_and_the_same_again_to_a_client_whose_answer_was_lost() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let first = client.sign_in(ALICE).await;
    let second = tokens(client.refresh(&first.refresh_token).await).await;
    assert_ne!(second.refresh_token, first.refresh_token);
    let again = tokens(client.refresh(&first.refresh_token).await).await;
    assert_eq!(again.refresh_token, second.refresh_token);
    let third = tokens(client.refresh(&second.refresh_token).await).await;
    assert_eq!(error(client.refresh(&first.refresh_token).await).await, "invalid_grant");
    assert_eq!(error(client.refresh(&third.refresh_token).await).await, "invalid_grant", "the session continues");
    site.audited("refresh_token_reused").await;
}
