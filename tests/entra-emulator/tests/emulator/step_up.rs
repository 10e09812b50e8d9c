//! Tests of requirements beyond the sign-in: second factors, authentication contexts and repeated sign-ins. Claims
//! request them, and a sign-in with these claims meets them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use entra_emulator::{
    ConditionalAccess, OptionalClaim,
    sign_in::{SignIn, Tokens},
};
use serde_json::{Value, json};

use crate::world::{EMULATOR, REDIRECT_URI, World, claims, refusal};

fn guarded(access: ConditionalAccess) -> World {
    World::with(|tenant| tenant.apps[0].conditional_access = access)
}

async fn sign_in_again(world: &World, claims: &str) -> Tokens {
    let scope = world.api_scope("mcp.access");
    let scopes = ["offline_access", scope.as_str()];
    SignIn {
        authority: &world.authority(),
        tenant: world.tenant,
        client: world.desktop,
        redirect_uri: REDIRECT_URI,
        user: "alice@contoso.com",
        scopes: &scopes,
        claims: Some(claims),
    }
    .tokens()
    .await
    .unwrap()
}

async fn refresh(world: &World, refresh_token: &str, claims: Option<&str>) -> (u16, Value) {
    let client = world.desktop.to_string();
    let mut form =
        vec![("grant_type", "refresh_token"), ("client_id", client.as_str()), ("refresh_token", refresh_token)];
    form.extend(claims.map(|claims| ("claims", claims)));
    world.token(&form).await
}

#[tokio::test]
async fn a_second_factor_is_required_in_both_formats_and_met_by_a_sign_in_with_the_claims() {
    for (access, error, suberror) in [
        (ConditionalAccess::MultiFactor, "interaction_required", Value::Null),
        (ConditionalAccess::MultiFactorBasicAction, "invalid_grant", json!("basic_action")),
    ] {
        let world = guarded(access);
        let without = world.user_token("alice");
        let answer = world.on_behalf_of(&without, "User.Read").await;
        assert_eq!(refusal(&answer), (400, error, 50076));
        assert_eq!(answer.1["suberror"], suberror);
        let asked = answer.1["claims"].as_str().unwrap();
        let again = world.on_behalf_of_with(&without, "User.Read", &[("claims", asked)]).await;
        assert_eq!(refusal(&again).2, 50076, "the server cannot do it for the user");

        let other =
            sign_in_again(&world, &json!({"access_token": {"capolids": {"values": ["other"]}}}).to_string()).await;
        assert_eq!(refusal(&world.on_behalf_of(&other.access_token, "User.Read").await).2, 50076);

        let with = sign_in_again(&world, asked).await;
        let (status, answer) = world.on_behalf_of(&with.access_token, "User.Read").await;
        assert_eq!(status, 200, "{answer}");
        let (_, refreshed) = refresh(&world, &with.refresh_token.unwrap(), None).await;
        let refreshed = refreshed["access_token"].as_str().unwrap();
        assert_eq!(world.on_behalf_of(refreshed, "User.Read").await.0, 200, "the session has it");
    }
}

#[tokio::test]
async fn claims_do_not_unblock_a_blocked_application() {
    let world = guarded(ConditionalAccess::Blocked);
    let answer = world.on_behalf_of(&world.user_token("alice"), "User.Read").await;
    assert_eq!(refusal(&answer), (400, "invalid_grant", 53003));
    assert!(answer.1.get("claims").is_none());
    let itself = format!("{}/mcp.access", world.api);
    assert_eq!(
        world.on_behalf_of(&world.user_token("alice"), &itself).await.0,
        200,
        "the policy only applies to Graph"
    );
}

#[tokio::test]
async fn a_sign_in_and_not_a_refresh_meets_an_authentication_context() {
    let world = World::with(|tenant| tenant.apps[0].optional_claims.push(OptionalClaim::Acrs));
    let asked = json!({"access_token": {"acrs": {"essential": true, "value": "c1"}}}).to_string();
    let plain = world.sign_in("alice", &["offline_access", &world.api_scope("mcp.access")]).await;
    assert!(claims(&json!(plain.access_token)).get("acrs").is_none());
    let answer = refresh(&world, plain.refresh_token.as_deref().unwrap(), Some(&asked)).await;
    assert_eq!(refusal(&answer), (400, "invalid_grant", 50076));
    assert_eq!(answer.1["claims"], json!(asked), "what the client has to sign in with");

    let stepped_up = sign_in_again(&world, &asked).await;
    assert_eq!(claims(&json!(stepped_up.access_token))["acrs"], json!(["c1"]));
    let (status, refreshed) = refresh(&world, stepped_up.refresh_token.as_deref().unwrap(), Some(&asked)).await;
    assert_eq!((status, &claims(&refreshed["access_token"])["acrs"]), (200, &json!(["c1"])));
}

#[tokio::test]
async fn a_revoked_session_is_challenged_by_graph_then_by_the_token_endpoint_until_the_user_signs_in_again() {
    let world = World::new();
    let capable = json!({"access_token": {"xms_cc": {"values": ["cp1"]}}}).to_string();
    let before = world.user_token("alice");
    let (_, graph) = world.on_behalf_of_with(&before, "User.Read", &[("claims", &capable)]).await;
    world.control().revoke(world.tenant, world.alice).unwrap();

    let url = format!("{}/v1.0/me", EMULATOR.graph());
    let response = world.http.get(url).bearer_auth(graph["access_token"].as_str().unwrap()).send().await.unwrap();
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    let encoded = challenge.split("claims=\"").nth(1).unwrap().trim_end_matches('"');
    let asked = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();

    let answer = world.on_behalf_of_with(&before, "User.Read", &[("claims", &asked)]).await;
    assert_eq!(refusal(&answer), (400, "invalid_grant", 50173));
    assert_eq!(answer.1["claims"], json!(asked), "the same demand, now for the client");

    let after = sign_in_again(&world, answer.1["claims"].as_str().unwrap()).await.access_token;
    let (status, graph) = world.on_behalf_of_with(&after, "User.Read", &[("claims", &asked)]).await;
    assert_eq!(status, 200, "{graph}");
    let demanded: Value = serde_json::from_str(&asked).unwrap();
    let demanded: i64 = demanded["access_token"]["nbf"]["value"].as_str().unwrap().parse().unwrap();
    assert!(claims(&graph["access_token"])["nbf"].as_i64().unwrap() >= demanded);
    assert_eq!(world.graph("/me", graph["access_token"].as_str().unwrap()).await.0, 200);
}
