//! Tests of several resources in one authorization request, of which each token request names one, and of a client that
//! is its own resource.

use entra_emulator::sign_in::{Callback, Step};
use serde_json::Value;

use crate::{
    browser_session::{authorize_url, browser},
    world::{REDIRECT_URI, World, claims, refusal},
};

const ALICE: &str = "alice@contoso.com";
const GRAPH_SCOPE: &str = "https://graph.microsoft.com/User.Read";

fn both(world: &World) -> String {
    format!("openid offline_access {}/mcp.access {GRAPH_SCOPE} Mail.Read", world.api)
}

async fn callback(world: &World, changes: &[(&str, &str)]) -> Callback {
    let page = browser().open(&authorize_url(world, changes)).await.unwrap();
    match page {
        Step::Page(page) => page.sign_in(ALICE).await.unwrap().callback().unwrap(),
        Step::Client(callback) => callback,
    }
}

async fn redeem(world: &World, scope: Option<&str>) -> (u16, Value) {
    let callback = callback(world, &[("scope", &both(world))]).await;
    let (client, code) = (world.desktop.to_string(), callback.parameter("code").unwrap());
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("client_id", client.as_str()),
        ("code", &code),
        ("redirect_uri", REDIRECT_URI),
    ];
    form.extend(scope.map(|scope| ("scope", scope)));
    world.token(&form).await
}

async fn refresh(world: &World, token: &Value, scope: &str) -> (u16, Value) {
    let (client, token) = (world.desktop.to_string(), token.as_str().unwrap());
    let mut form = vec![("grant_type", "refresh_token"), ("client_id", client.as_str()), ("refresh_token", token)];
    form.extend((!scope.is_empty()).then_some(("scope", scope)));
    world.token(&form).await
}

#[tokio::test]
async fn one_sign_in_gives_tokens_for_each_resource_one_request_at_a_time() {
    let world = World::new();
    let api_scope = format!("{}/mcp.access offline_access", world.api);
    let (status, for_api) = redeem(&world, Some(&api_scope)).await;
    assert_eq!(status, 200, "{for_api}");
    let token = claims(&for_api["access_token"]);
    assert_eq!((&token["aud"], &token["scp"]), (&world.api.to_string().into(), &"mcp.access".into()));

    let (status, for_graph) = refresh(&world, &for_api["refresh_token"], GRAPH_SCOPE).await;
    assert_eq!(status, 200, "{for_graph}");
    assert_eq!(claims(&for_graph["access_token"])["aud"], "https://graph.microsoft.com");
    assert_eq!(world.graph("/me", for_graph["access_token"].as_str().unwrap()).await.0, 200);
    let (_, again) = refresh(&world, &for_graph["refresh_token"], &api_scope).await;
    assert_eq!(claims(&again["access_token"])["aud"], world.api.to_string());
}

#[tokio::test]
async fn a_token_request_without_scope_is_about_the_first_resource() {
    let world = World::new();
    let (status, tokens) = redeem(&world, None).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(claims(&tokens["access_token"])["aud"], world.api.to_string());
    assert!(tokens["id_token"].is_string());
    let (_, refreshed) = refresh(&world, &tokens["refresh_token"], "").await;
    assert_eq!(claims(&refreshed["access_token"])["aud"], world.api.to_string());
}

#[tokio::test]
async fn a_token_request_that_names_several_resources_is_refused() {
    let world = World::new();
    let answer = redeem(&world, Some(&both(&world))).await;
    assert_eq!(refusal(&answer), (400, "invalid_request", 28000));
    let (_, tokens) = redeem(&world, None).await;
    let answer = refresh(&world, &tokens["refresh_token"], &both(&world)).await;
    assert_eq!(refusal(&answer), (400, "invalid_request", 28000));
}

#[tokio::test]
async fn every_scope_of_every_resource_must_exist() {
    let world = World::new();
    for (scope, code) in [
        (format!("{GRAPH_SCOPE} {}/mcp.unknown", world.api), "AADSTS650053"),
        (format!("{GRAPH_SCOPE} api://unknown/mcp.access"), "AADSTS500011"),
    ] {
        let refused = callback(&world, &[("scope", &scope)]).await;
        assert!(refused.parameter("error_description").unwrap().starts_with(code), "{scope}");
    }
}

#[tokio::test]
async fn the_resource_parameter_names_one_of_the_resources() {
    let world = World::new();
    let scope = both(&world);
    let api = format!("api://{}", world.api);
    for (resource, error) in [(api.as_str(), None), ("https://mcp.contoso.com/mcp", Some("invalid_target"))] {
        let callback = callback(&world, &[("scope", &scope), ("resource", resource)]).await;
        assert_eq!(callback.parameter("error").as_deref(), error, "{resource}");
    }
}

/// A world whose desktop client is a resource as well.
fn own_resource() -> World {
    World::with(|tenant| {
        let desktop = &mut tenant.apps[1];
        desktop.scopes = vec!["mcp.access".to_owned()];
        desktop.identifier_uris = vec![format!("api://{}", desktop.client_id)];
    })
}

#[tokio::test]
async fn a_client_requests_a_token_for_itself_by_its_guid_and_not_by_a_uri() {
    let world = own_resource();
    let by_guid = format!("{}/mcp.access offline_access", world.desktop);
    let by_uri = format!("api://{}/mcp.access", world.desktop);
    let refused = callback(&world, &[("scope", &by_uri)]).await;
    assert_eq!(refused.parameter("error").as_deref(), Some("invalid_request"));
    assert!(refused.parameter("error_description").unwrap().starts_with("AADSTS90009"));

    let redeem = async |scope: &str| {
        let code = callback(&world, &[("scope", &by_guid)]).await.parameter("code").unwrap();
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", &world.desktop.to_string()),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("scope", scope),
        ];
        world.token(&form).await
    };
    assert_eq!(refusal(&redeem(&by_uri).await), (400, "invalid_request", 90009));
    let (status, tokens) = redeem(&by_guid).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(refusal(&refresh(&world, &tokens["refresh_token"], &by_uri).await), (400, "invalid_request", 90009));
    assert_eq!(refresh(&world, &tokens["refresh_token"], "").await.0, 200);
    // Another client may use both.
    let another = World::new();
    assert!(callback(&another, &[("scope", &another.api_scope("mcp.access"))]).await.parameter("code").is_some());
}
