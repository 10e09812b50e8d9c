//! Tests of sealed values in wrong places, at this server and at another one with the same key secret.

use super::by_hand::{Returning, Shown, cookie, get};
use super::mcp_client::{McpClient, error, tokens};
use super::site::{OAuthSetup, OAuthSite};
use crate::tenant::{ALICE, control};

/// Every sealed value that leaves the server, fresh and unused.
async fn sealed_values(site: &OAuthSite) -> Vec<(&'static str, String)> {
    let client = McpClient::register(site).await;
    let browser = site.browser();
    let entra = browser.open(&site.url("/sessions")).await.unwrap().page().unwrap();
    let state = entra.url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    entra.sign_in(ALICE).await.unwrap().page().unwrap();
    let sessions = cookie(site, &browser, "sessions");
    let tokens = client.sign_in(ALICE).await;
    vec![
        ("request", Shown::to(&client, &[]).await.request),
        ("code", client.code(ALICE).await),
        ("refresh token", tokens.refresh_token),
        ("access token", tokens.access_token),
        ("state", state),
        ("sessions cookie", sessions.split_once('=').unwrap().1.to_owned()),
        ("client", client.id),
    ]
}

/// Returns the result of each place for this value: true if it was accepted there.
async fn accepted(site: &OAuthSite, value: &str, shown: &Shown, sessions: &str) -> Vec<(&'static str, bool)> {
    let client = McpClient::known(site, value);
    let known = McpClient::register(site).await;
    let consent = client.consent_page(&site.browser(), &[]).await;
    let moved = [("request", value), ("decision", "approve")];
    let approval = site.http.post(site.url("/consent")).form(&moved).header("cookie", &shown.cookie).send().await;
    let callback = format!("{}?code=x&state={value}", site.url("/callback"));
    let cookie_of_sessions = format!("{}={value}", sessions.split_once('=').unwrap().0);
    vec![
        ("client", consent.status == 200),
        ("request", approval.unwrap().headers().contains_key("location")),
        ("code", known.redeem(value).await.status() == 200),
        ("refresh token", known.refresh(value).await.status() == 200),
        ("state", get(site, &callback, &shown.cookie).await.headers().contains_key("location")),
        ("sessions cookie", get(site, &site.url("/sessions"), &cookie_of_sessions).await.status() == 200),
        ("access token", site.site.rpc(value, "ping", serde_json::json!({})).await.status() == 200),
    ]
}

#[tokio::test]
async fn a_sealed_value_is_only_valid_in_its_own_place() {
    let site = OAuthSite::new().await;
    let shown = Shown::to(&McpClient::register(&site).await, &[]).await;
    let browser = site.browser();
    let entra = browser.open(&site.url("/sessions")).await.unwrap().page().unwrap();
    entra.sign_in(ALICE).await.unwrap().page().unwrap();
    let sessions = cookie(&site, &browser, "sessions");
    // Places whose own value needs nothing else. The others need their client, cookie or browser, too.
    let alone = ["client", "sessions cookie", "access token"];
    for (name, value) in sealed_values(&site).await {
        for (place, is_accepted) in accepted(&site, &value, &shown, &sessions).await {
            assert_eq!(is_accepted, name == place && alone.contains(&name), "{name} as {place}");
        }
    }
}

/// A second server of the same tenant, app registration and key secret, at another address.
async fn neighbour(of: &OAuthSite) -> OAuthSite {
    let mut setup = OAuthSetup::new().await;
    let (tenant, callback) = (&of.site.setup.tenant, format!("{}/mcp/callback", setup.edge.origin));
    setup.setup.configuration.entra = of.site.setup.configuration.entra.clone();
    control()
        .change_tenant(tenant.id, |directory| {
            let app = directory.apps.iter_mut().find(|app| app.client_id == tenant.server).unwrap();
            app.redirect_uris.push(callback);
            Ok(())
        })
        .unwrap();
    setup.start().await
}

#[tokio::test]
async fn values_of_a_server_are_invalid_at_another_with_the_same_secret_tenant_and_registration() {
    let site = OAuthSite::new().await;
    let other = neighbour(&site).await;
    let (client, at_other) = (McpClient::register(&site).await, McpClient::register(&other).await);
    // Both work.
    let (mut ours, theirs) = (client.sign_in(ALICE).await, at_other.sign_in(ALICE).await);
    assert_eq!(other.site.rpc(&theirs.access_token, "ping", serde_json::json!({})).await.status(), 200);
    let moved = McpClient { verifier: client.verifier.clone(), ..McpClient::known(&other, &client.id) };
    assert_eq!(moved.consent_page(&other.browser(), &[]).await.status, 400, "the client's id");
    assert_eq!(
        other.site.rpc(&ours.access_token, "ping", serde_json::json!({})).await.status(),
        401,
        "the access token"
    );
    assert_eq!(
        error(moved.refresh(&ours.refresh_token).await).await,
        "invalid_client",
        "the client's id and the refresh token"
    );
    let registered = McpClient { verifier: client.verifier.clone(), ..McpClient::register(&other).await };
    assert_eq!(error(registered.refresh(&ours.refresh_token).await).await, "invalid_grant", "the refresh token");
    let code = client.code(ALICE).await;
    assert_eq!(error(registered.redeem(&code).await).await, "invalid_grant", "the code");
    tokens(client.redeem(&code).await).await;
    let shown = Shown::to(&client, &[]).await;
    let refused = shown.approve(&other, &shown.cookie, &[]).await;
    assert_eq!((refused.status().as_u16(), refused.headers().get("location")), (400, None), "the request");
    let returning = Returning::of(&client, ALICE).await;
    let query = returning.callback.query().unwrap();
    let refused = get(&other, &format!("{}?{query}", other.url("/callback")), &returning.cookie).await;
    assert_eq!((refused.status().as_u16(), refused.headers().get("location")), (400, None), "the callback");
    for token in [&ours.refresh_token, &ours.access_token] {
        let form = [("token", token.as_str()), ("client_id", &client.id)];
        assert_eq!(other.http.post(other.url("/revoke")).form(&form).send().await.unwrap().status(), 200);
    }
    ours = tokens(client.refresh(&ours.refresh_token).await).await;
    assert_eq!(site.site.rpc(&ours.access_token, "ping", serde_json::json!({})).await.status(), 200);
    let browser = site.browser();
    let entra = browser.open(&site.url("/sessions")).await.unwrap().page().unwrap();
    entra.sign_in(ALICE).await.unwrap().page().unwrap();
    let ours = cookie(&site, &browser, "sessions");
    let theirs = other.browser();
    let entra = theirs.open(&other.url("/sessions")).await.unwrap().page().unwrap();
    entra.sign_in(ALICE).await.unwrap().page().unwrap();
    let (name, value) = (cookie(&other, &theirs, "sessions"), ours.split_once('=').unwrap().1);
    let moved = format!("{}={value}", name.split_once('=').unwrap().0);
    assert_ne!(name.split_once('=').unwrap().0, ours.split_once('=').unwrap().0, "one takes the other's cookie away");
    for cookie in [&ours, &moved] {
        assert_eq!(get(&other, &other.url("/sessions"), cookie).await.status(), 303, "the cookie of the sessions page");
    }
}
