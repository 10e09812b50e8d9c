//! Tests of Microsoft Graph's permissions that a user, or only an administrator, consents to at Entra.

use entra_emulator::sign_in::{Page, Step};
use entra_emulator::{App, Consent};
use serde_json::json;

use super::by_hand::parameter;
use super::mcp_client::{McpClient, tokens};
use super::site::{OAuthSetup, OAuthSite, REDIRECT_URI};
use crate::tenant::{ALICE, control};

/// A site whose users consent to Graph this way, and have no consent yet.
async fn site(consent: Consent) -> OAuthSite {
    let setup = OAuthSetup::new().await;
    let tenant = &setup.setup.tenant;
    let change = |app: &mut App| {
        app.consent = consent;
        app.granted_graph_scopes.clear();
    };
    control()
        .change_tenant(tenant.id, |directory| {
            directory.apps.iter_mut().filter(|app| app.client_id == tenant.server).for_each(change);
            Ok(())
        })
        .unwrap();
    setup.start().await
}

/// Entra's page after the user has selected their account.
async fn after_sign_in(site: &OAuthSite, client: &McpClient<'_>, scope: &str) -> Page {
    let page = client.consent_page(&site.browser(), &[("scope", scope)]).await;
    let entra = page.press("approve").await.unwrap().page().unwrap();
    entra.sign_in(ALICE).await.unwrap().page().unwrap()
}

#[tokio::test]
async fn a_permission_without_consent_is_a_scope_whose_sign_in_asks_the_user() {
    let site = site(Consent::Ask).await;
    let client = McpClient::register(&site).await;
    let page = after_sign_in(&site, &client, "mcp.access").await;
    let first = page.press("Accept").await.unwrap().callback().unwrap();
    let first = tokens(client.redeem(&first.parameter("code").unwrap()).await).await;
    let refused = site.site.call(&first.access_token, "get_user_details", json!({})).await;
    assert_eq!(refused.status(), 403);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains("graph:User.Read mcp.access"), "{challenge}");
    let page = after_sign_in(&site, &client, "mcp.access graph:User.Read").await;
    assert!(page.text().unwrap().contains("User.Read"), "{}", page.html);
    let second = page.press("Accept").await.unwrap().callback().unwrap();
    let second = tokens(client.redeem(&second.parameter("code").unwrap()).await).await;
    assert_eq!(second.scope, "mcp.access graph:User.Read");
    assert_eq!(site.site.call(&second.access_token, "get_user_details", json!({})).await.status(), 200);
}

#[tokio::test]
async fn an_approval_by_an_administrator_is_requested_on_a_page_with_the_link() {
    let site = site(Consent::AdminOnly).await;
    let client = McpClient::register(&site).await;
    let page = after_sign_in(&site, &client, "graph:User.Read").await;
    let Step::Page(ours) = page.press("Back").await.unwrap() else { panic!("the client gets no answer") };
    assert_eq!(ours.status, 403);
    assert!(ours.text().unwrap().contains("User.Read"), "{}", ours.html);
    let links = ours.links().unwrap();
    let admin = links.iter().find(|link| link.target.contains("/adminconsent")).unwrap();
    let back = links.iter().find(|link| link.target.starts_with(REDIRECT_URI)).unwrap();
    let back = url::Url::parse(&back.target).unwrap();
    for (name, value) in [("error", "access_denied"), ("state", "client-state"), ("iss", &site.url(""))] {
        assert_eq!(parameter(&back, name).as_deref(), Some(value), "{back}");
    }
    assert_eq!(parameter(&back, "code"), None);
    let callback = site.url("/callback");
    assert!(admin.target.contains(&url::form_urlencoded::byte_serialize(callback.as_bytes()).collect::<String>()));
}
