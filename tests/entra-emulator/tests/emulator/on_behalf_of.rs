//! The on-behalf-of grant: from a user's token for the API to a user's token for Graph.

use serde_json::{Value, json};

use crate::world::{EMULATOR, ON_BEHALF_OF, World, change, claims, now, part, refusal};

#[tokio::test]
async fn a_users_token_for_the_api_becomes_a_graph_token_of_that_user() {
    let world = World::new();
    let (status, answer) =
        world.on_behalf_of(&world.user_token("alice"), "https://graph.microsoft.com/User.Read").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["scope"], "https://graph.microsoft.com/User.Read https://graph.microsoft.com/Mail.Read");
    assert!(answer.get("refresh_token").is_none());
    let token = claims(&answer["access_token"]);
    assert_eq!(token["ver"], "1.0");
    assert_eq!(token["aud"], "https://graph.microsoft.com");
    assert_eq!(token["iss"], format!("https://sts.windows.net/{}/", world.tenant));
    assert_eq!(token["oid"], json!(world.alice));
    assert_eq!(token["appid"], json!(world.api));
    assert_eq!(token["scp"], "User.Read Mail.Read");
    let (status, me) = world.graph("/me", answer["access_token"].as_str().unwrap()).await;
    assert_eq!((status, &me["displayName"]), (200, &json!("alice")));

    let exchange =
        world.requests().into_iter().find(|request| request.grant_type.as_deref() == Some(ON_BEHALF_OF)).unwrap();
    assert_eq!(exchange.user, Some(world.alice));
    assert!(exchange.federated.is_some() && !exchange.client_secret_present);
}

#[tokio::test]
async fn the_emulated_graph_is_a_name_of_graph_too() {
    let world = World::new();
    let scope = format!("{}/.default", EMULATOR.graph());
    let (status, answer) = world.on_behalf_of(&world.user_token("alice"), &scope).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(world.graph("/me", answer["access_token"].as_str().unwrap()).await.0, 200);
}

#[tokio::test]
async fn a_refresh_token_comes_with_offline_access_only() {
    let world = World::new();
    let (_, answer) = world.on_behalf_of(&world.user_token("alice"), "User.Read offline_access openid").await;
    assert!(answer["refresh_token"].is_string());
    assert_eq!(claims(&answer["id_token"])["aud"], json!(world.api));
}

#[tokio::test]
async fn an_assertion_must_be_a_valid_user_token_for_the_api() {
    let world = World::new();
    let control = world.control();
    let right =
        control.user_claims(world.tenant, world.desktop, "alice@contoso.com", &world.api_scope("mcp.access")).unwrap();
    let signed = |changes: Value, header: Value| {
        let mut claims = Value::Object(right.clone());
        change(&mut claims, changes);
        control.sign(world.tenant, &header, &claims).unwrap()
    };
    let no_header = || json!({});
    let app_only = control.application_claims(world.tenant, world.daemon, &world.api_scope(".default")).unwrap();
    let id_token = control.id_token_claims(world.tenant, world.api, "alice@contoso.com").unwrap();
    let elsewhere = control.sign(world.cluster, &json!({}), &Value::Object(right.clone())).unwrap();
    let (message, _) = elsewhere.rsplit_once('.').unwrap();
    let cases = [
        (500_131, "invalid_grant", signed(json!({"aud": world.desktop}), no_header())),
        (500_131, "invalid_grant", world.graph_token("alice", "User.Read")),
        (500_133, "invalid_grant", signed(json!({"exp": now() - 1}), no_header())),
        (500_133, "invalid_grant", signed(json!({"nbf": now() + 60}), no_header())),
        (50013, "invalid_grant", signed(json!({}), json!({"kid": "unknown"}))),
        (50013, "invalid_grant", signed(json!({}), json!({"alg": "none"}))),
        (50013, "invalid_grant", signed(json!({}), json!({"alg": "HS256"}))),
        (50013, "invalid_grant", signed(json!({"iss": world.issuer()}), no_header())),
        (50013, "invalid_grant", format!("{message}.AAAA")),
        (7_000_114, "unauthorized_client", control.sign(world.tenant, &json!({}), &Value::Object(app_only)).unwrap()),
        (50027, "invalid_request", control.sign(world.tenant, &json!({}), &Value::Object(id_token)).unwrap()),
        (50027, "invalid_request", "nonsense".to_owned()),
    ];
    for (code, error, assertion) in cases {
        let answer = world.on_behalf_of(&assertion, "User.Read").await;
        assert_eq!(refusal(&answer), (400, error, code), "{assertion}");
    }
    assert_eq!(world.on_behalf_of(&signed(json!({}), no_header()), "User.Read").await.0, 200);
}

#[tokio::test]
async fn scopes_without_consent_are_refused() {
    let world = World::new();
    let token = world.user_token("alice");
    let answer = world.on_behalf_of(&token, "Files.Read").await;
    assert_eq!(refusal(&answer), (400, "invalid_grant", 65001));
    assert_eq!(answer.1["suberror"], "consent_required");

    let nothing = World::with(|tenant| tenant.apps[0].granted_graph_scopes.clear());
    let answer = nothing.on_behalf_of(&nothing.user_token("alice"), "https://graph.microsoft.com/.default").await;
    assert_eq!(refusal(&answer), (400, "invalid_grant", 65001));
}

#[tokio::test]
async fn another_api_is_reached_only_by_the_clients_that_it_pre_authorized() {
    let world = World::with(|tenant| {
        let api = tenant.apps[0].client_id;
        let mut other = tenant.apps[0].clone();
        other.client_id = uuid::Uuid::new_v4();
        other.identifier_uris = vec!["api://other".to_owned()];
        other.pre_authorized_clients = vec![api];
        let mut closed = other.clone();
        closed.client_id = uuid::Uuid::new_v4();
        closed.identifier_uris = vec!["api://closed".to_owned()];
        closed.pre_authorized_clients.clear();
        tenant.apps.extend([other, closed]);
    });
    let token = world.user_token("alice");
    assert_eq!(world.on_behalf_of(&token, "api://other/mcp.access").await.0, 200);
    let answer = world.on_behalf_of(&token, "api://closed/mcp.access").await;
    assert_eq!(refusal(&answer).2, 65001);
}

#[tokio::test]
async fn a_scope_that_does_not_exist_or_is_of_two_resources_is_refused() {
    let world = World::new();
    let token = world.user_token("alice");
    let both = format!("User.Read {}", world.api_scope("mcp.access"));
    for (code, scope) in [(650_053, "mcp.access"), (28000, both.as_str())] {
        assert_eq!(refusal(&world.on_behalf_of(&token, scope).await).2, code, "{scope}");
    }
}

#[tokio::test]
async fn the_signature_of_a_sent_graph_token_does_not_verify() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read");
    let header = part(&token, 0);
    assert!(header["nonce"].is_string());
    let keys: Value = world
        .http
        .get(format!("{}/{}/discovery/v2.0/keys", EMULATOR.authority(), world.tenant))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).unwrap();
    let verifies = |token: &str| {
        let key =
            jsonwebtoken::DecodingKey::from_rsa_components(key["n"].as_str().unwrap(), key["e"].as_str().unwrap())
                .unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, jsonwebtoken::Algorithm::RS256).unwrap()
    };
    assert!(!verifies(&token));
    assert!(verifies(&world.user_token("alice")));
    assert_eq!(world.graph("/me", &token).await.0, 200);
}

#[tokio::test]
async fn the_token_has_the_capabilities_that_the_client_sends() {
    let world = World::new();
    let capable = json!({"access_token": {"xms_cc": {"values": ["cp1"]}}}).to_string();
    let (_, with) = world.on_behalf_of_with(&world.user_token("alice"), "User.Read", &[("claims", &capable)]).await;
    assert_eq!(world.requests().pop().unwrap().claims.as_ref(), Some(&capable), "the log has it as it was sent");
    let (_, without) = world.on_behalf_of(&world.user_token("alice"), "User.Read").await;
    assert_eq!(claims(&with["access_token"])["xms_cc"], json!(["cp1"]));
    assert!(claims(&without["access_token"]).get("xms_cc").is_none());
    let answer = world.on_behalf_of_with(&world.user_token("alice"), "User.Read", &[("claims", "{")]).await;
    assert_eq!(refusal(&answer).2, 9_002_313);
}

#[tokio::test]
async fn a_public_client_cannot_act_on_behalf_of_a_user() {
    let world = World::new();
    let answer = world
        .token(&[
            ("grant_type", ON_BEHALF_OF),
            ("client_id", &world.desktop.to_string()),
            ("requested_token_use", "on_behalf_of"),
            ("assertion", &world.user_token("alice")),
            ("scope", "User.Read"),
        ])
        .await;
    assert_eq!(refusal(&answer), (401, "invalid_client", 7_000_218));
}
