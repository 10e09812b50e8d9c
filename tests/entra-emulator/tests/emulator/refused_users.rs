//! Tests of users that the tenant refuses: disabled, with revoked sessions, or not assigned to the app.

use entra_emulator::RoleAssignment;
use serde_json::{Value, json};

use crate::{
    browser_session::{authorize_url, browser},
    world::{EMULATOR, World, claims, refusal},
};

async fn refresh(world: &World, token: &str) -> (u16, Value) {
    let client = world.desktop.to_string();
    world.token(&[("grant_type", "refresh_token"), ("client_id", &client), ("refresh_token", token)]).await
}

async fn refresh_token(world: &World) -> String {
    let scope = world.api_scope("mcp.access");
    world.sign_in("alice", &["offline_access", &scope]).await.refresh_token.unwrap()
}

/// A control operation over HTTP on alice.
async fn control(world: &World, operation: &str) {
    let (authority, tenant) = (EMULATOR.authority(), world.tenant);
    let url = format!("{authority}/_control/tenants/{tenant}/users/{}/{operation}", world.alice);
    assert_eq!(world.http.post(url).send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn a_disabled_user_gets_no_tokens_until_enabled_again() {
    let world = World::new();
    let token = refresh_token(&world).await;
    control(&world, "disable").await;
    assert_eq!(refusal(&refresh(&world, &token).await), (400, "invalid_grant", 50057));
    control(&world, "enable").await;
    assert_eq!(refresh(&world, &token).await.0, 200);
    assert!(world.control().set_account_enabled(world.tenant, world.desktop, false).is_err(), "no user");
}

#[tokio::test]
async fn revoked_sign_in_sessions_end_refresh_tokens_and_new_sign_ins_do_not() {
    let world = World::new();
    let token = refresh_token(&world).await;
    control(&world, "revoke").await;
    assert_eq!(refusal(&refresh(&world, &token).await), (400, "invalid_grant", 50173));
    assert_eq!(refresh(&world, &refresh_token(&world).await).await.0, 200);
}

#[tokio::test]
async fn a_removed_role_is_missing_in_the_next_token() {
    let world = World::new();
    let token = refresh_token(&world).await;
    let roles = async || claims(&refresh(&world, &token).await.1["access_token"]).get("roles").cloned();
    assert_eq!(roles().await, Some(json!(["Mcp.Reader"])));
    let base = format!("{}/_control/tenants/{}/apps/{}", EMULATOR.authority(), world.tenant, world.api);
    let assignment = format!("{base}/role-assignments/{}", world.alice);
    assert_eq!(world.http.delete(&assignment).send().await.unwrap().status(), 204);
    assert_eq!(roles().await, None);
    assert_eq!(world.http.delete(&assignment).send().await.unwrap().status(), 400, "there is none any more");
    let writer = json!({"principal": world.alice, "role": "Mcp.Writer"});
    let added = world.http.post(format!("{base}/role-assignments")).json(&writer).send().await.unwrap();
    assert_eq!(added.status(), 204);
    assert_eq!(roles().await, Some(json!(["Mcp.Writer"])));
}

/// A world whose API accepts only assigned users.
fn closed() -> World {
    World::with(|tenant| tenant.apps[0].assignment_required = true)
}

#[tokio::test]
async fn only_an_assigned_user_signs_in_if_assignment_is_required() {
    let world = closed();
    let scope = world.api_scope("mcp.access");
    world.sign_in("alice", &[&scope]).await;
    world.sign_in("bob", &[&scope]).await;
    world.control().unassign(world.tenant, world.api, world.sales).unwrap();

    let page = browser().open(&authorize_url(&world, &[])).await.unwrap().page().unwrap();
    let page = page.sign_in("bob@contoso.com").await.unwrap().page().unwrap();
    assert!(page.alert().unwrap().unwrap().starts_with("AADSTS50105: "), "{}", page.html);
    let callback = page.press("Back").await.unwrap().callback().unwrap();
    assert_eq!(callback.parameter("error").as_deref(), Some("access_denied"));
    assert!(callback.parameter("error_description").unwrap().starts_with("AADSTS50105: "));
    world.sign_in("bob", &["User.Read"]).await;
}

#[tokio::test]
async fn a_silent_request_of_an_unassigned_user_sends_an_error_to_the_client() {
    let world = closed();
    world.control().unassign(world.tenant, world.api, world.sales).unwrap();
    let browser = browser();
    let page = browser.open(&authorize_url(&world, &[("scope", "User.Read")])).await.unwrap().page().unwrap();
    page.sign_in("bob@contoso.com").await.unwrap().callback().unwrap();
    let silent = browser.open(&authorize_url(&world, &[("prompt", "none")])).await.unwrap().callback().unwrap();
    assert_eq!(silent.parameter("error").as_deref(), Some("interaction_required"));
    assert!(silent.parameter("error_description").unwrap().starts_with("AADSTS50105: "));
}

#[tokio::test]
async fn the_end_of_an_assignment_ends_refreshes() {
    let world = closed();
    let token = refresh_token(&world).await;
    assert_eq!(refresh(&world, &token).await.0, 200);
    world.control().unassign(world.tenant, world.api, world.alice).unwrap();
    assert_eq!(refusal(&refresh(&world, &token).await), (400, "invalid_grant", 50105));
    let assignment = RoleAssignment { principal: world.alice, role: None };
    world.control().assign(world.tenant, world.api, assignment).unwrap();
    assert_eq!(refresh(&world, &token).await.0, 200);
}
