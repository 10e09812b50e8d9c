//! Tests of requirements of Entra or Graph beyond a user's first sign-in. They reach the user through the client's next
//! one.

use entra_emulator::ConditionalAccess;
use entra_emulator::sign_in::Step;
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
    let scope = [("scope", "mcp.access acrs:c1 acrs:c2 unknown")];
    let page = client.consent_page(&site.browser(), &scope).await.text().unwrap();
    assert!(page.contains("stronger sign-in") && page.contains("(c1)") && !page.contains("c2"), "{page}");
    let callback = client.approve(&site.browser(), ALICE, &scope).await;
    let second = tokens(client.redeem(&callback.parameter("code").unwrap()).await).await;
    assert_eq!(second.scope, "mcp.access acrs:c1");
    assert_eq!(site.site.call(&second.access_token, "get_user_details", json!({})).await.status(), 200);
}

#[tokio::test]
async fn claims_of_graph_end_the_session_and_go_to_entra_with_the_next_sign_in_of_that_person_and_client_once() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let first = client.sign_in(ALICE).await;
    let tenant = &site.site.setup.tenant;
    control()
        .change_tenant(tenant.id, |directory| {
            let app = directory.apps.iter_mut().find(|app| app.client_id == tenant.server).unwrap();
            app.conditional_access = ConditionalAccess::MultiFactor;
            Ok(())
        })
        .unwrap();
    let refused = site.site.call(&first.access_token, "get_user_details", json!({})).await;
    assert_eq!(refused.status(), 401);
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    assert_eq!(error(client.refresh(&first.refresh_token).await).await, "invalid_grant");
    // Entra gets two requests, the second one with the claims.
    let browser = site.browser();
    let entra = client.consent_page(&browser, &[]).await.press("approve").await.unwrap().page().unwrap();
    let again = entra.sign_in(ALICE).await.unwrap();
    let callback = match again {
        Step::Page(page) => page.sign_in(ALICE).await.unwrap().callback().unwrap(),
        Step::Client(callback) => callback,
    };
    let second = tokens(client.redeem(&callback.parameter("code").unwrap()).await).await;
    let codes =
        tenant.requests().into_iter().filter(|request| request.grant_type.as_deref() == Some("authorization_code"));
    let claims: Vec<String> = codes.filter_map(|request| request.claims).collect();
    assert!(claims[claims.len() - 1].contains("capolids"), "{claims:#?}");
    assert_eq!(site.site.call(&second.access_token, "get_user_details", json!({})).await.status(), 200);
}
