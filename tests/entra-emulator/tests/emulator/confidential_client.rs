//! Tests of a web application that signs users in: the code and refresh grants with a federated credential.

use entra_emulator::{App, Consent, OptionalClaim};
use serde_json::{Value, json};

use crate::{
    browser_session::{authorize_url, browser},
    world::{JWT_BEARER, World, claims, refusal},
};

const WEB: &str = "https://app.contoso.com/auth/callback";
/// RFC 7636, appendix B
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A world whose API is a web application that signs users in for itself and for Graph.
fn world() -> World {
    World::with(|tenant| {
        let api = &mut tenant.apps[0];
        api.redirect_uris = vec![WEB.to_owned()];
        api.consent = Consent::Ask;
        api.optional_claims.push(OptionalClaim::Acrs);
    })
}

fn scope(world: &World) -> String {
    format!("openid profile offline_access {}/mcp.access", world.api)
}

/// Returns alice's code for the application, after consent if a page asks for it.
async fn code(world: &World, changes: &[(&str, &str)]) -> String {
    let (client, scope) = (world.api.to_string(), scope(world));
    let request = [
        ("client_id", client.as_str()),
        ("redirect_uri", WEB),
        ("scope", &scope),
        ("response_mode", "query"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let browser = browser().leaving_at(WEB).unwrap();
    let page = browser.open(&authorize_url(world, &[&request[..], changes].concat())).await.unwrap().page().unwrap();
    let callback = match page.sign_in("alice@contoso.com").await.unwrap() {
        entra_emulator::sign_in::Step::Client(callback) => callback,
        entra_emulator::sign_in::Step::Page(page) => page.press("Accept").await.unwrap().callback().unwrap(),
    };
    assert!(callback.url.as_str().starts_with(&format!("{WEB}?")), "response_mode=query: {}", callback.url);
    callback.parameter("code").unwrap()
}

/// Returns a token request of this client, with an assertion that is valid for both the API and the daemon.
async fn token(world: &World, client: uuid::Uuid, form: &[(&str, &str)]) -> (u16, Value) {
    let (client, assertion) = (client.to_string(), world.right_assertion());
    let credential =
        [("client_id", client.as_str()), ("client_assertion_type", JWT_BEARER), ("client_assertion", &assertion)];
    world.token(&[&credential[..], form].concat()).await
}

fn code_grant(code: &str) -> [(&str, &str); 4] {
    [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", WEB), ("code_verifier", VERIFIER)]
}

fn refresh_grant(token: &Value) -> [(&str, &str); 2] {
    [("grant_type", "refresh_token"), ("refresh_token", token.as_str().unwrap())]
}

#[tokio::test]
async fn a_web_application_redeems_and_refreshes_with_its_federated_credential() {
    let world = world();
    let code = code(&world, &[("nonce", "n")]).await;
    let (status, tokens) = token(&world, world.api, &code_grant(&code)).await;
    assert_eq!(status, 200, "{tokens}");
    let access = claims(&tokens["access_token"]);
    assert_eq!((&access["aud"], &access["azp"]), (&json!(world.api), &json!(world.api)));
    assert_eq!((&access["azpacr"], &access["oid"]), (&json!("2"), &json!(world.alice)));
    assert_eq!(access["roles"], json!(["Mcp.Reader"]));
    let id = claims(&tokens["id_token"]);
    assert_eq!((&id["nonce"], &id["aud"]), (&json!("n"), &json!(world.api)));

    let (status, first) = token(&world, world.api, &refresh_grant(&tokens["refresh_token"])).await;
    assert_eq!(status, 200, "{first}");
    let (status, again) = token(&world, world.api, &refresh_grant(&tokens["refresh_token"])).await;
    assert_eq!(status, 200, "the old refresh token stays valid: {again}");
    assert_ne!(first["refresh_token"], tokens["refresh_token"]);
    let graph = [("scope", "https://graph.microsoft.com/User.Read")];
    let (status, answer) =
        token(&world, world.api, &[&refresh_grant(&first["refresh_token"])[..], &graph].concat()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(claims(&answer["access_token"])["scp"], "User.Read Mail.Read");
    assert!(world.requests().iter().any(|request| request.federated.is_some() && !request.client_secret_present));
}

#[tokio::test]
async fn a_code_or_refresh_token_needs_the_credential() {
    let world = world();
    let code = code(&world, &[]).await;
    let client = world.api.to_string();
    let alone = [&code_grant(&code)[..], &[("client_id", client.as_str())]].concat();
    assert_eq!(refusal(&world.token(&alone).await), (401, "invalid_client", 7_000_218));
    let public = [&alone[..], &[("client_secret", "secret")]].concat();
    assert_eq!(refusal(&world.token(&public).await), (401, "invalid_client", 7_000_215));

    let (status, tokens) = token(&world, world.api, &code_grant(&code)).await;
    assert_eq!(status, 200, "a refused client does not use the code up: {tokens}");
    let alone = [&refresh_grant(&tokens["refresh_token"])[..], &[("client_id", client.as_str())]].concat();
    assert_eq!(refusal(&world.token(&alone).await), (401, "invalid_client", 7_000_218));
}

#[tokio::test]
async fn a_public_client_must_not_present_an_assertion() {
    let world = world();
    let answer = token(&world, world.desktop, &code_grant("code")).await;
    assert_eq!(refusal(&answer), (401, "invalid_client", 700_025));
}

#[tokio::test]
async fn a_web_applications_code_needs_its_verifier_and_works_once() {
    let world = world();
    let code = code(&world, &[]).await;
    let mut wrong = code_grant(&code);
    wrong[3].1 = "wrong";
    assert_eq!(refusal(&token(&world, world.api, &wrong).await), (400, "invalid_grant", 501_481));
    assert_eq!(refusal(&token(&world, world.api, &wrong[..3]).await), (400, "invalid_grant", 501_481));
    assert_eq!(token(&world, world.api, &code_grant(&code)).await.0, 200);
    assert_eq!(refusal(&token(&world, world.api, &code_grant(&code)).await), (400, "invalid_grant", 54005));
}

#[tokio::test]
async fn another_confidential_client_can_use_neither_code_nor_refresh_token() {
    let world = world();
    let code = code(&world, &[]).await;
    assert_eq!(refusal(&token(&world, world.daemon, &code_grant(&code)).await), (400, "invalid_grant", 70000));
    let (_, tokens) = token(&world, world.api, &code_grant(&code)).await;
    let answer = token(&world, world.daemon, &refresh_grant(&tokens["refresh_token"])).await;
    assert_eq!(refusal(&answer), (400, "invalid_grant", 70000));
}

#[tokio::test]
async fn claims_of_the_authorization_request_apply_to_the_token() {
    let world = world();
    let asked = json!({"access_token": {
        "acrs": {"essential": true, "value": "c1"}, "xms_cc": {"values": ["cp1"]},
    }});
    let code = code(&world, &[("claims", &asked.to_string())]).await;
    let (_, tokens) = token(&world, world.api, &code_grant(&code)).await;
    let access = claims(&tokens["access_token"]);
    assert_eq!((&access["acrs"], &access["xms_cc"]), (&json!(["c1"]), &json!(["cp1"])));
}

#[tokio::test]
async fn a_web_redirect_uri_matches_exactly() {
    let world = World::with(|tenant| {
        let api: &mut App = &mut tenant.apps[0];
        api.redirect_uris = vec![WEB.to_owned()];
    });
    let client = world.api.to_string();
    for wrong in [format!("{WEB}/"), format!("{WEB}?x=1"), "https://app.contoso.com/auth".to_owned()] {
        let url = authorize_url(&world, &[("client_id", &client), ("redirect_uri", &wrong)]);
        let page = browser().open(&url).await.unwrap().page().unwrap();
        assert!(page.alert().unwrap().unwrap().starts_with("AADSTS50011: "), "{wrong}");
    }
}
