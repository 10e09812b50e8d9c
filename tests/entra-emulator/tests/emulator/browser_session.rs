//! Tests of single sign-on: a signed-in browser needs no page, until it logs out or its user's sessions are revoked.

use entra_emulator::sign_in::{Authority, Browser, Page, SameSite, Step};
use serde_json::json;
use url::Url;

use crate::world::{EMULATOR, REDIRECT_URI, World};

const ALICE: &str = "alice@contoso.com";

/// Returns a browser that knows the desktop client.
pub(crate) fn browser() -> Browser {
    Browser::new(&Authority::from(&*EMULATOR)).unwrap().leaving_at(REDIRECT_URI).unwrap()
}

/// Returns an authorization request of the desktop client with changed parameters. Empty ones are left out.
pub(crate) fn authorize_url(world: &World, changes: &[(&str, &str)]) -> String {
    let (client, scope) = (world.desktop.to_string(), world.api_scope("mcp.access"));
    let mut query = vec![
        ("client_id", client.as_str()),
        ("response_type", "code"),
        ("redirect_uri", REDIRECT_URI),
        ("scope", &scope),
        ("state", "xyz"),
    ];
    for (name, value) in changes {
        query.retain(|(known, _)| known != name);
        query.push((name, value));
    }
    query.retain(|(_, value)| !value.is_empty());
    let url = format!("{}/{}/oauth2/v2.0/authorize", EMULATOR.authority(), world.tenant);
    Url::parse_with_params(&url, query).unwrap().into()
}

fn title(page: &Page) -> String {
    page.html.split("<h1>").nth(1).unwrap().split('<').next().unwrap().to_owned()
}

/// Signs alice in in a new browser.
async fn signed_in(world: &World) -> Browser {
    let browser = browser();
    let page = browser.open(&authorize_url(world, &[])).await.unwrap().page().unwrap();
    let callback = page.sign_in(ALICE).await.unwrap().callback().unwrap();
    assert!(callback.parameter("code").is_some());
    browser
}

async fn open(browser: &Browser, world: &World, changes: &[(&str, &str)]) -> Step {
    browser.open(&authorize_url(world, changes)).await.unwrap()
}

#[tokio::test]
async fn a_signed_in_browser_needs_no_page() {
    let world = World::new();
    let browser = signed_in(&world).await;
    let callback = open(&browser, &world, &[]).await.callback().unwrap();
    assert_eq!(callback.parameter("state").as_deref(), Some("xyz"));
    let code = callback.parameter("code").unwrap();
    let (status, tokens) = world
        .token(&[
            ("grant_type", "authorization_code"),
            ("client_id", &world.desktop.to_string()),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
        ])
        .await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(crate::world::claims(&tokens["access_token"])["oid"], json!(world.alice));
}

#[tokio::test]
async fn the_session_is_a_cookie_as_entra_sets_it() {
    let world = World::new();
    let [cookie] = signed_in(&world).await.cookies(EMULATOR.authority()).unwrap().try_into().unwrap();
    assert_eq!((cookie.name.as_str(), cookie.path.as_str()), ("ESTSAUTH", "/"));
    assert!(cookie.secure && cookie.http_only && cookie.same_site == SameSite::None && cookie.max_age.is_none());
}

#[tokio::test]
async fn another_browser_and_another_tenant_have_no_session() {
    let (world, other) = (World::new(), World::new());
    let browser_of_alice = signed_in(&world).await;
    assert_eq!(title(&open(&browser(), &world, &[]).await.page().unwrap()), "Sign in");
    assert_eq!(title(&open(&browser_of_alice, &other, &[]).await.page().unwrap()), "Sign in");
}

#[tokio::test]
async fn a_request_can_demand_the_page_despite_a_session() {
    let world = World::new();
    let browser = signed_in(&world).await;
    for change in [("prompt", "login"), ("prompt", "select_account"), ("login_hint", "bob@contoso.com")] {
        let page = open(&browser, &world, &[change]).await.page().unwrap();
        assert_eq!(title(&page), "Sign in", "{change:?}");
    }
    let page = open(&browser, &world, &[("prompt", "login")]).await.page().unwrap();
    page.sign_in("bob@contoso.com").await.unwrap().callback().unwrap();
    open(&browser, &world, &[("login_hint", "BOB@contoso.com")]).await.callback().unwrap();
}

#[tokio::test]
async fn a_silent_request_needs_the_session_of_the_right_user() {
    let world = World::new();
    let silent = ("prompt", "none");
    let refused = open(&browser(), &world, &[silent]).await.callback().unwrap();
    assert_eq!(refused.parameter("error").as_deref(), Some("login_required"));

    let browser = signed_in(&world).await;
    assert!(open(&browser, &world, &[silent]).await.callback().unwrap().parameter("code").is_some());
    let bob = open(&browser, &world, &[silent, ("login_hint", "bob@contoso.com")]).await.callback().unwrap();
    assert_eq!(bob.parameter("error").as_deref(), Some("login_required"));
}

#[tokio::test]
async fn a_session_does_not_meet_requirements_that_its_sign_in_did_not_have() {
    let world = World::new();
    let browser = signed_in(&world).await;
    let asked = json!({"access_token": {"acrs": {"essential": true, "value": "c1"}}}).to_string();
    let step_up = ("claims", asked.as_str());
    let silent = open(&browser, &world, &[step_up, ("prompt", "none")]).await.callback().unwrap();
    assert_eq!(silent.parameter("error").as_deref(), Some("interaction_required"));
    assert!(silent.parameter("error_description").unwrap().starts_with("AADSTS50076"));

    let page = open(&browser, &world, &[step_up]).await.page().unwrap();
    page.sign_in(ALICE).await.unwrap().callback().unwrap();
    assert!(open(&browser, &world, &[step_up]).await.callback().unwrap().parameter("code").is_some());
}

#[tokio::test]
async fn a_session_ends_with_log_out_revocation_or_the_account() {
    let world = World::new();
    let control = world.control();
    let browser = signed_in(&world).await;
    let logout = format!("{}/{}/oauth2/v2.0/logout", EMULATOR.authority(), world.tenant);
    let page = browser.open(&logout).await.unwrap().page().unwrap();
    assert_eq!(title(&page), "Signed out");
    assert!(browser.cookies(EMULATOR.authority()).unwrap().is_empty());
    open(&browser, &world, &[]).await.page().unwrap();

    let browser = signed_in(&world).await;
    control.revoke(world.tenant, world.alice).unwrap();
    let page = open(&browser, &world, &[]).await.page().unwrap();
    page.sign_in(ALICE).await.unwrap().callback().unwrap();
    open(&browser, &world, &[]).await.callback().unwrap();
    control.set_account_enabled(world.tenant, world.alice, false).unwrap();
    open(&browser, &world, &[]).await.page().unwrap();
}

#[tokio::test]
async fn the_session_itself_ends_with_log_out_and_not_only_its_cookie() {
    let world = World::new();
    let browser = signed_in(&world).await;
    let [cookie] = browser.cookies(EMULATOR.authority()).unwrap().try_into().unwrap();
    let logout = format!("{}/{}/oauth2/v2.0/logout", EMULATOR.authority(), world.tenant);
    browser.open(&logout).await.unwrap();
    let planted = format!("{}={}; Path=/; Secure; SameSite=None", cookie.name, cookie.value);
    browser.plant_cookie(EMULATOR.authority(), &planted).unwrap();
    open(&browser, &world, &[]).await.page().unwrap();
}

#[tokio::test]
async fn log_out_redirects_only_to_a_registered_address() {
    let world = World::new();
    let logout = |target: &str| {
        let url = format!("{}/{}/oauth2/v2.0/logout", EMULATOR.authority(), world.tenant);
        Url::parse_with_params(&url, [("post_logout_redirect_uri", target), ("state", "xyz")]).unwrap()
    };
    let browser = browser();
    let callback = browser.open(logout(REDIRECT_URI).as_str()).await.unwrap().callback().unwrap();
    assert_eq!(callback.parameter("state").as_deref(), Some("xyz"));
    let page = browser.open(logout("https://attacker.example/").as_str()).await.unwrap().page().unwrap();
    assert_eq!(title(&page), "Signed out");
}
