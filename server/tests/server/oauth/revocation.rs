//! Tests of the end of sessions: by their client (RFC 7009), and by the platform team for all users.

use serde_json::json;

use super::mcp_client::{McpClient, Tokens, error, tokens};
use super::site::OAuthSite;
use crate::harness::{eventually, eventually_within};
use crate::tenant::{ALICE, BOB};

async fn revoke(client: &McpClient<'_>, form: &[(&str, &str)]) -> reqwest::Response {
    client.site.http.post(client.site.url("/revoke")).form(form).send().await.unwrap()
}

async fn is_let_in(site: &OAuthSite, tokens: &Tokens) -> bool {
    site.site.rpc(&tokens.access_token, "ping", json!({})).await.status() == 200
}

#[tokio::test]
async fn a_client_ends_its_session_by_either_token() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    for by_refresh_token in [true, false] {
        let session = client.sign_in(ALICE).await;
        assert!(is_let_in(&site, &session).await);
        let token = if by_refresh_token { &session.refresh_token } else { &session.access_token };
        // The hint may be wrong (RFC 7009 section 2.1).
        let form = [("token", token.as_str()), ("client_id", &client.id), ("token_type_hint", "access_token")];
        let answer = revoke(&client, &form).await;
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, ""));
        assert_eq!(error(client.refresh(&session.refresh_token).await).await, "invalid_grant");
        let refused = async || (!is_let_in(&site, &session).await).then_some(());
        eventually_within(std::time::Duration::from_secs(5), "the access token is refused", refused).await;
        assert_eq!(revoke(&client, &form).await.status(), 200, "a revocation of an ended token is no error");
    }
    site.audited("session_revoked").await;
}

#[tokio::test]
async fn only_its_client_ends_a_session_or_learns_of_it() {
    let site = OAuthSite::new().await;
    let (client, other) = (McpClient::register(&site).await, McpClient::register(&site).await);
    let session = client.sign_in(ALICE).await;
    let signature = session.access_token.rfind('.').unwrap();
    let unsigned = format!("{}.", &session.access_token[..signature]);
    let entra = site.site.setup.tenant.token(ALICE);
    for (token, client_id, status) in [
        (session.refresh_token.as_str(), other.id.as_str(), 200),
        (&session.access_token, &other.id, 200),
        (&session.access_token, "unknown", 200),
        (&unsigned, &client.id, 200),
        (&entra, &client.id, 200),
        (&client.id, &client.id, 200),
        ("unknown", &client.id, 200),
        (&session.refresh_token, "", 400),
        ("", &client.id, 400),
    ] {
        let form: Vec<_> =
            [("token", token), ("client_id", client_id)].into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let answer = revoke(&client, &form).await;
        assert_eq!(answer.status(), status, "{form:?}");
        if status == 400 {
            assert_eq!(error(answer).await, "invalid_request");
        }
    }
    let twice = [("token", "x"), ("token", session.refresh_token.as_str()), ("client_id", &client.id)];
    assert_eq!(error(revoke(&client, &twice).await).await, "invalid_request");
    assert!(is_let_in(&site, &session).await);
    tokens(client.refresh(&session.refresh_token).await).await;
}

#[tokio::test]
async fn a_revocation_for_all_ends_earlier_sessions_within_seconds_and_accepts_later_ones() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let (alice, bob) = (client.sign_in(ALICE).await, client.sign_in(BOB).await);
    let pending = client.code(ALICE).await;
    let direct = site.site.setup.tenant.token(ALICE);
    let mut policy = site.site.setup.policy.clone();
    let instant = jiff::Timestamp::now().as_second() + 1;
    policy.revoke_sessions_before = Some(instant);
    site.site.setup.write_policy(&policy);
    for session in [&alice, &bob] {
        let refused = async || (!is_let_in(&site, session).await).then_some(());
        eventually("the access token is refused", refused).await;
        assert_eq!(error(client.refresh(&session.refresh_token).await).await, "invalid_grant");
    }
    // Only Entra revokes its own tokens.
    assert_eq!(site.site.rpc(&direct, "ping", json!({})).await.status(), 200);
    eventually("the instant is over", async || (jiff::Timestamp::now().as_second() >= instant).then_some(())).await;
    // Codes from before cannot be redeemed afterwards.
    let late = client.redeem(&pending).await;
    if late.status() == 200 {
        let late = tokens(late).await;
        assert!(!is_let_in(&site, &late).await, "a code of before brings access");
        assert_eq!(error(client.refresh(&late.refresh_token).await).await, "invalid_grant");
    }
    let new = client.sign_in(ALICE).await;
    assert!(is_let_in(&site, &new).await);
    tokens(client.refresh(&new.refresh_token).await).await;
}
