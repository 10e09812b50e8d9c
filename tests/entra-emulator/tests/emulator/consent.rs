//! Tests of consent: requested, stored, refused, only for administrators, and missing.

use entra_emulator::{
    App, Consent,
    sign_in::{Browser, Callback, Page, Step},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use url::Url;

use crate::{
    browser_session::{authorize_url, browser},
    world::{EMULATOR, REDIRECT_URI, World, claims, refusal},
};

const ALICE: &str = "alice@contoso.com";
const BOB: &str = "bob@contoso.com";
const GRAPH: &str = "https://graph.microsoft.com";

/// A world whose desktop client needs consent, with further changes. bob is an administrator.
fn world_with(consent: Consent, change: impl FnOnce(&mut App)) -> World {
    World::with(|tenant| {
        tenant.users[1].administrator = true;
        tenant.apps[1].consent = consent;
        change(&mut tenant.apps[1]);
    })
}

fn asking() -> World {
    world_with(Consent::Ask, |_| {})
}

/// Returns the page that this user sees, or the address that the browser leaves to, after signing in.
async fn sign_in(world: &World, browser: &Browser, user: &str, changes: &[(&str, &str)]) -> Step {
    let changes = [&[("prompt", "login")][..], changes].concat();
    let page = browser.open(&authorize_url(world, &changes)).await.unwrap().page().unwrap();
    page.sign_in(user).await.unwrap()
}

async fn asked(world: &World, browser: &Browser, user: &str, changes: &[(&str, &str)]) -> Page {
    let page = sign_in(world, browser, user, changes).await.page().unwrap();
    assert!(page.html.contains("<h1>Permissions requested</h1>"), "{}", page.html);
    page
}

fn assert_refused(callback: &Callback, error: &str, code: &str) {
    assert_eq!(callback.parameter("error").as_deref(), Some(error), "{}", callback.url);
    let description = callback.parameter("error_description").unwrap();
    assert!(description.starts_with(&format!("{code}: ")), "{description}");
    assert!(callback.parameter("code").is_none());
}

async fn redeem(world: &World, callback: &Callback, more: &[(&str, &str)]) -> (u16, Value) {
    let (client, code) = (world.desktop.to_string(), callback.parameter("code").unwrap());
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("client_id", client.as_str()),
        ("code", &code),
        ("redirect_uri", REDIRECT_URI),
    ];
    form.extend_from_slice(more);
    world.token(&form).await
}

async fn refresh(world: &World, token: &Value, scope: &str) -> (u16, Value) {
    let (client, token) = (world.desktop.to_string(), token.as_str().unwrap());
    let form = [("grant_type", "refresh_token"), ("client_id", &client), ("refresh_token", token), ("scope", scope)];
    world.token(&form).await
}

#[tokio::test]
async fn a_user_is_asked_once_and_for_each_new_scope_again() {
    let (world, browser) = (asking(), browser());
    let scope = world.api_scope("mcp.access");
    let page = asked(&world, &browser, ALICE, &[]).await;
    assert!(page.html.contains("VS &lt;Code&gt;") && page.html.contains(&scope), "{}", page.html);
    assert!(page.press("Accept").await.unwrap().callback().unwrap().parameter("code").is_some());

    sign_in(&world, &browser, ALICE, &[]).await.callback().unwrap();
    let more = format!("{scope} {}", world.api_scope("mcp.admin"));
    asked(&world, &browser, ALICE, &[("scope", &more)]).await;
    asked(&world, &browser, ALICE, &[("scope", "User.Read")]).await;
    asked(&world, &browser, BOB, &[]).await;
}

#[tokio::test]
async fn consent_is_given_to_one_client() {
    let other = uuid::Uuid::new_v4();
    let world = World::with(|tenant| {
        tenant.apps[1].consent = Consent::Ask;
        let app = App { client_id: other, ..tenant.apps[1].clone() };
        tenant.apps.push(app);
    });
    let browser = browser();
    asked(&world, &browser, ALICE, &[]).await.press("Accept").await.unwrap().callback().unwrap();
    asked(&world, &browser, ALICE, &[("client_id", &other.to_string())]).await;
}

#[tokio::test]
async fn a_user_who_cancels_goes_back_without_consent() {
    let (world, browser) = (asking(), browser());
    let page = asked(&world, &browser, ALICE, &[]).await;
    let callback = page.press("Cancel").await.unwrap().callback().unwrap();
    assert_refused(&callback, "access_denied", "AADSTS65004");
    assert_eq!(callback.parameter("state").as_deref(), Some("xyz"));
    asked(&world, &browser, ALICE, &[]).await;
}

#[tokio::test]
async fn a_request_can_ask_again_for_an_earlier_consent() {
    let (world, browser) = (asking(), browser());
    asked(&world, &browser, ALICE, &[]).await.press("Accept").await.unwrap();
    let again = authorize_url(&world, &[("prompt", "consent")]);
    let page = browser.open(&again).await.unwrap().page().unwrap();
    assert!(page.html.contains("Permissions requested"), "{}", page.html);
    page.press("Accept").await.unwrap().callback().unwrap();
}

#[tokio::test]
async fn scopes_granted_by_an_administrator_need_no_page() {
    let world = world_with(Consent::Ask, |app| app.granted_graph_scopes = vec!["User.Read".to_owned()]);
    let browser = browser();
    let granted = [("scope", "openid profile offline_access User.Read")];
    sign_in(&world, &browser, ALICE, &granted).await.callback().unwrap();
    asked(&world, &browser, ALICE, &[("scope", "User.Read Mail.Read")]).await;

    world.control().grant_consent(world.tenant, world.desktop, None, "Mail.Read").unwrap();
    sign_in(&world, &browser, ALICE, &[("scope", "User.Read Mail.Read")]).await.callback().unwrap();
}

#[tokio::test]
async fn a_client_that_the_resource_authorized_itself_needs_no_consent() {
    let world = World::with(|tenant| {
        tenant.apps[0].pre_authorized_clients = vec![tenant.apps[1].client_id];
        tenant.apps[1].consent = Consent::AdminOnly;
    });
    sign_in(&world, &browser(), ALICE, &[]).await.callback().unwrap();
}

#[tokio::test]
async fn a_sign_in_with_scopes_of_openid_alone_needs_consent_as_well() {
    let (world, browser) = (asking(), browser());
    let page = asked(&world, &browser, ALICE, &[("scope", "openid offline_access")]).await;
    assert!(page.html.contains("offline_access"), "{}", page.html);
    page.press("Accept").await.unwrap().callback().unwrap();
    sign_in(&world, &browser, ALICE, &[("scope", "openid profile offline_access")]).await.callback().unwrap();
}

#[tokio::test]
async fn a_silent_request_without_consent_is_refused_with_consent_required() {
    let (world, browser) = (asking(), browser());
    asked(&world, &browser, ALICE, &[]).await;
    let silent = authorize_url(&world, &[("prompt", "none")]);
    let callback = browser.open(&silent).await.unwrap().callback().unwrap();
    assert_refused(&callback, "consent_required", "AADSTS65001");
}

#[tokio::test]
async fn a_user_who_may_not_consent_needs_an_administrator() {
    let world = world_with(Consent::AdminOnly, |_| {});
    let browser = browser();
    let page = sign_in(&world, &browser, ALICE, &[]).await.page().unwrap();
    assert!(page.html.contains("<h1>Need admin approval</h1>"), "{}", page.html);
    assert!(page.alert().unwrap().unwrap().starts_with("AADSTS90094"));
    let forged = [("emulator_user", ALICE), ("emulator_decision", "accept")];
    let forged = page.submit(&forged).await.unwrap().page().unwrap();
    assert!(forged.html.contains("Need admin approval"), "no way round: {}", forged.html);
    let callback = page.press("Back").await.unwrap().callback().unwrap();
    assert_refused(&callback, "access_denied", "AADSTS90094");
    assert_eq!(callback.parameter("error_subcode").as_deref(), Some("cancel"));

    world.control().grant_consent(world.tenant, world.desktop, None, &world.api_scope("mcp.access")).unwrap();
    sign_in(&world, &browser, ALICE, &[]).await.callback().unwrap();
    let page = sign_in(&world, &browser, ALICE, &[("prompt", "consent")]).await.page().unwrap();
    assert!(page.html.contains("Need admin approval"), "prompt=consent shows the page to a user who cannot consent");
}

#[tokio::test]
async fn a_token_has_exactly_the_scopes_with_consent() {
    let (world, browser) = (asking(), browser());
    let both = format!("offline_access {} {}", world.api_scope("mcp.access"), world.api_scope("mcp.admin"));
    asked(&world, &browser, ALICE, &[("scope", &both)]).await.press("Accept").await.unwrap();
    let one = format!("offline_access {}", world.api_scope("mcp.access"));
    let callback = sign_in(&world, &browser, ALICE, &[("scope", &one)]).await.callback().unwrap();
    let (status, tokens) = redeem(&world, &callback, &[]).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(claims(&tokens["access_token"])["scp"], "mcp.access mcp.admin");

    let answer = refresh(&world, &tokens["refresh_token"], &format!("{GRAPH}/User.Read")).await;
    assert_eq!(refusal(&answer), (400, "invalid_grant", 65001));
    assert_eq!(answer.1["suberror"], "consent_required");
    let callback = sign_in(&world, &browser, ALICE, &[("scope", &one)]).await.callback().unwrap();
    let answer = redeem(&world, &callback, &[("scope", "User.Read")]).await;
    assert_eq!(refusal(&answer), (400, "invalid_grant", 65001));
}

#[tokio::test]
async fn a_withdrawn_consent_ends_the_next_refresh() {
    let (world, browser) = (asking(), browser());
    let scope = format!("offline_access {}", world.api_scope("mcp.access"));
    let page = asked(&world, &browser, ALICE, &[("scope", &scope)]).await;
    let callback = page.press("Accept").await.unwrap().callback().unwrap();
    let (_, tokens) = redeem(&world, &callback, &[]).await;
    assert_eq!(refresh(&world, &tokens["refresh_token"], &scope).await.0, 200);
    world.control().withdraw_consent(world.tenant, world.desktop, Some(world.alice)).unwrap();
    assert_eq!(refusal(&refresh(&world, &tokens["refresh_token"], &scope).await).2, 65001);
}

#[tokio::test]
async fn a_users_consent_counts_on_behalf_of_the_user() {
    let world = World::new();
    let token = world.user_token("alice");
    assert_eq!(refusal(&world.on_behalf_of(&token, "Files.Read").await).2, 65001);
    world.control().grant_consent(world.tenant, world.api, Some(world.alice), "Files.Read").unwrap();
    let (status, answer) = world.on_behalf_of(&token, "Files.Read").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(claims(&answer["access_token"])["scp"], "User.Read Mail.Read Files.Read");
    assert_eq!(refusal(&world.on_behalf_of(&world.user_token("bob"), "Files.Read").await).2, 65001);
}

fn admin_consent_url(world: &World, more: &[(&str, &str)]) -> String {
    let (client, scope) = (world.desktop.to_string(), format!("{GRAPH}/User.Read {}", world.api_scope("mcp.access")));
    let url = format!("{}/{}/v2.0/adminconsent", EMULATOR.authority(), world.tenant);
    let query = [("client_id", client.as_str()), ("scope", &scope), ("state", "xyz")];
    Url::parse_with_params(&url, query.iter().chain(more)).unwrap().into()
}

#[tokio::test]
async fn an_administrator_consents_for_all_users() {
    let world = world_with(Consent::AdminOnly, |_| {});
    let browser = browser();
    let url = admin_consent_url(&world, &[("redirect_uri", REDIRECT_URI)]);
    let page = browser.open(&url).await.unwrap().page().unwrap();
    let page = page.sign_in(ALICE).await.unwrap().page().unwrap();
    assert!(page.alert().unwrap().unwrap().starts_with("AADSTS90094"), "alice is no administrator");
    let page = page.sign_in(BOB).await.unwrap().page().unwrap();
    assert!(page.html.contains("User.Read") && page.html.contains("mcp.access"), "{}", page.html);

    let declined = page.press("Cancel").await.unwrap().callback().unwrap();
    assert_refused(&declined, "access_denied", "AADSTS65004");
    assert_eq!(declined.parameter("state").as_deref(), Some("xyz"));
    let accepted = page.press("Accept").await.unwrap().callback().unwrap();
    for (name, value) in [("admin_consent", "True"), ("state", "xyz"), ("tenant", &world.tenant.to_string())] {
        assert_eq!(accepted.parameter(name).as_deref(), Some(value));
    }
    assert!(accepted.parameter("scope").unwrap().contains("User.Read"));
    sign_in(&world, &browser, ALICE, &[]).await.callback().unwrap();
}

#[tokio::test]
async fn admin_consent_redirects_only_to_a_registered_address() {
    let without = world_with(Consent::AdminOnly, |app| app.redirect_uris.clear());
    let with = world_with(Consent::AdminOnly, |_| {});
    let cases = [(&without, "AADSTS500113", REDIRECT_URI), (&with, "AADSTS50011", "https://attacker.example/")];
    for (world, code, redirect_uri) in cases {
        let url = admin_consent_url(world, &[("redirect_uri", redirect_uri)]);
        let page = browser().open(&url).await.unwrap().page().unwrap();
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(page.alert().unwrap().unwrap().starts_with(&format!("{code}: ")), "{}", page.html);
    }
}

#[tokio::test]
async fn consents_are_given_and_withdrawn_over_http() {
    let (world, browser) = (asking(), browser());
    let base = format!("{}/_control/tenants/{}/apps/{}/consents", EMULATOR.authority(), world.tenant, world.desktop);
    for (user, withdrawn) in [(json!(null), base.clone()), (json!(world.alice), format!("{base}/{}", world.alice))] {
        let body = json!({"user": user, "scope": world.api_scope("mcp.access")});
        assert_eq!(world.http.post(&base).json(&body).send().await.unwrap().status(), 204);
        sign_in(&world, &browser, ALICE, &[]).await.callback().unwrap();
        assert_eq!(world.http.delete(&withdrawn).send().await.unwrap().status(), 204);
        asked(&world, &browser, ALICE, &[]).await;
    }
}
