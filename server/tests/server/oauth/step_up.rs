//! What Entra or Graph asks of a person beyond their first sign-in reaches them through the client's next one.

use entra_emulator::{Fault, FaultKind, Host, Matcher};
use serde_json::json;

use super::mcp_client::{McpClient, error, tokens};
use super::site::{OAuthSetup, OAuthSite};
use crate::tenant::{ALICE, control};

#[tokio::test]
async fn an_authentication_context_is_a_scope_that_the_next_sign_in_satisfies() {
    let mut setup = OAuthSetup::new().await;
    setup.setup.policy.grants[0].require.authentication_context = Some("c1".to_owned());
    let site = setup.start().await;
    let client = McpClient::register(&site).await;
    let first = client.sign_in(ALICE).await;
    let refused = site.site.call(&first.access_token, "get_user_details", json!({})).await;
    assert_eq!(refused.status(), 403);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains("insufficient_scope") && challenge.contains("acrs:c1 mcp.access"), "{challenge}");
    let callback = client.approve(&site.browser(), ALICE, &[("scope", "mcp.access acrs:c1 acrs:c2 unknown")]).await;
    let second = tokens(client.redeem(&callback.parameter("code").unwrap()).await).await;
    assert_eq!(second.scope, "mcp.access acrs:c1");
    assert_eq!(site.site.call(&second.access_token, "get_user_details", json!({})).await.status(), 200);
}

#[tokio::test]
async fn claims_of_graph_end_the_session_and_go_to_entra_with_the_next_sign_in_of_that_person_and_client_once() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let first = client.sign_in(ALICE).await;
    let tenant = site.site.setup.tenant.id;
    let challenge = r#"{"access_token":{"acrs":{"essential":true,"value":"c3"}}}"#;
    control()
        .inject(Fault {
            matcher: Matcher { tenant: Some(tenant), host: Some(Host::Graph), ..Matcher::default() },
            times: 2,
            kind: FaultKind::ClaimsChallenge { claims: challenge.to_owned() },
        })
        .unwrap();
    let refused = site.site.call(&first.access_token, "get_user_details", json!({})).await;
    assert_eq!(refused.status(), 401);
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    assert_eq!(error(client.refresh(&first.refresh_token).await).await, "invalid_grant");
    // The person signs in once, Entra is asked twice: the second time with the claims.
    let browser = site.browser();
    let entra = client.consent_page(&browser, &[]).await.press("approve").await.unwrap().page().unwrap();
    let again = entra.sign_in(ALICE).await.unwrap();
    let asked: Vec<String> = site.site.setup.tenant.requests().iter().map(|request| format!("{request:?}")).collect();
    assert!(asked.iter().any(|request| request.contains("c3")), "{asked:#?}");
    let callback = again.callback().unwrap();
    let second = tokens(client.redeem(&callback.parameter("code").unwrap()).await).await;
    assert_eq!(site.site.call(&second.access_token, "get_user_details", json!({})).await.status(), 200);
}
