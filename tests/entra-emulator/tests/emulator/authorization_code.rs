//! The sign-in page, the authorization code grant with PKCE, and refresh tokens.

use entra_emulator::{
    GroupMembershipClaims, OptionalClaim,
    sign_in::{AuthorizationCode, SignIn},
};
use reqwest::{Response, header::LOCATION};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::world::{EMULATOR, REDIRECT_URI, World, claims, refusal};

/// Signs alice in up to the code.
async fn code(world: &World) -> AuthorizationCode {
    let scope = world.api_scope("mcp.access");
    let scopes = ["openid", "offline_access", scope.as_str()];
    SignIn {
        authority: &world.authority(),
        tenant: world.tenant,
        client: world.desktop,
        redirect_uri: REDIRECT_URI,
        user: "alice@contoso.com",
        scopes: &scopes,
        claims: None,
    }
    .code()
    .await
    .unwrap()
}

async fn redeem(world: &World, code: &str, verifier: &str, redirect_uri: &str) -> (u16, Value) {
    world
        .token(&[
            ("grant_type", "authorization_code"),
            ("client_id", &world.desktop.to_string()),
            ("code", code),
            ("code_verifier", verifier),
            ("redirect_uri", redirect_uri),
        ])
        .await
}

async fn authorize(world: &World, changes: &[(&str, &str)]) -> Response {
    let (client, scope) = (world.desktop.to_string(), world.api_scope("mcp.access"));
    let mut query = vec![
        ("client_id", client.as_str()),
        ("response_type", "code"),
        ("redirect_uri", REDIRECT_URI),
        ("scope", &scope),
        ("state", "a \"state\" <&>"),
    ];
    for (name, value) in changes {
        query.retain(|(known, _)| known != name);
        query.push((name, value));
    }
    let url = format!("{}/{}/oauth2/v2.0/authorize", EMULATOR.authority(), world.tenant);
    world.http.get(url).query(&query).send().await.unwrap()
}

/// Returns a parameter of the address that an answer redirects to.
fn redirected(response: &Response, parameter: &str) -> Option<String> {
    let location = Url::parse(response.headers()[LOCATION].to_str().unwrap()).unwrap();
    location.query_pairs().find(|(name, _)| name == parameter).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn a_signed_in_user_gets_tokens_for_the_api() {
    let world = World::new();
    let scope = world.api_scope("mcp.access");
    let tokens = world.sign_in("alice", &["openid", "profile", "offline_access", &scope]).await;
    assert!(tokens.refresh_token.is_some());
    assert_eq!(tokens.expires_in, 3599);
    let access = claims(&json!(tokens.access_token));
    assert_eq!(access["iss"], format!("{}/{}/v2.0", EMULATOR.authority(), world.tenant));
    assert_eq!(access["aud"], json!(world.api));
    assert_eq!(access["azp"], json!(world.desktop));
    assert_eq!(access["azpacr"], "0");
    assert_eq!(access["tid"], json!(world.tenant));
    assert_eq!(access["oid"], json!(world.alice));
    assert_eq!(access["scp"], "mcp.access");
    assert_eq!(access["roles"], json!(["Mcp.Reader"]));
    assert_eq!(access["idtyp"], "user");
    assert_eq!(access["ver"], "2.0");
    assert_eq!(access["preferred_username"], "alice@contoso.com");
    assert_ne!(access["sub"], access["oid"]);
    let id = claims(&json!(tokens.id_token));
    assert_eq!((&id["aud"], &id["oid"]), (&json!(world.desktop), &json!(world.alice)));
    assert!(id["nonce"].is_string() && id.get("scp").is_none());
    assert_ne!(id["sub"], access["sub"], "subjects are pairwise");
}

#[tokio::test]
async fn roles_come_through_direct_membership_and_groups_through_any() {
    let world = World::new();
    let tokens = world.sign_in("bob", &[&world.api_scope("mcp.access")]).await;
    let token = claims(&json!(tokens.access_token));
    assert_eq!(token["roles"], json!(["Mcp.Writer"]));
    let groups = token["groups"].as_array().unwrap();
    assert!(groups.len() == 2 && groups.contains(&json!(world.sales)), "{groups:?}");

    let assigned = World::with(|tenant| {
        tenant.apps[0].group_membership_claims = GroupMembershipClaims::ApplicationGroup;
    });
    let token = claims(&json!(assigned.user_token("bob")));
    assert_eq!(token["groups"], json!([assigned.sales]));
}

#[tokio::test]
async fn a_guests_token_names_the_home_tenant() {
    let home = Uuid::new_v4();
    let world = World::with(|tenant| {
        tenant.users[1].home_tenant = Some(home);
        tenant.apps[0].optional_claims.push(OptionalClaim::Acct);
    });
    let (alice, bob) = (claims(&json!(world.user_token("alice"))), claims(&json!(world.user_token("bob"))));
    assert_eq!((alice.get("idp"), &alice["acct"]), (None, &json!(0)));
    assert_eq!((&bob["idp"], &bob["acct"]), (&json!(format!("https://sts.windows.net/{home}/")), &json!(1)));
    assert_eq!(bob["tid"], json!(world.tenant));
}

#[tokio::test]
async fn more_than_200_groups_become_a_reference() {
    let grow = |to: usize| {
        World::with(|tenant| {
            let mut group = tenant.groups[0].clone();
            tenant.groups.clear();
            for _ in 0..to {
                group.id = Uuid::new_v4();
                tenant.groups.push(group.clone());
            }
        })
    };
    let most = claims(&json!(grow(200).user_token("bob")));
    assert_eq!(most["groups"].as_array().unwrap().len(), 200);
    let over = claims(&json!(grow(201).user_token("bob")));
    assert!(over.get("groups").is_none());
    assert_eq!(over["_claim_names"], json!({"groups": "src1"}));
    assert!(over["_claim_sources"]["src1"]["endpoint"].is_string());
}

#[tokio::test]
async fn an_app_gets_the_requested_version_1() {
    let world = World::with(|tenant| {
        tenant.apps[0].requested_access_token_version = entra_emulator::TokenVersion::V1;
    });
    let token = claims(&json!(world.user_token("alice")));
    assert_eq!(token["ver"], "1.0");
    assert_eq!(token["iss"], format!("https://sts.windows.net/{}/", world.tenant));
    assert_eq!(token["aud"], format!("api://{}", world.api));
    assert_eq!((&token["appid"], token.get("azp")), (&json!(world.desktop), None));
}

#[tokio::test]
async fn a_code_can_be_redeemed_once() {
    let world = World::new();
    let AuthorizationCode { code, verifier } = code(&world).await;
    assert_eq!(redeem(&world, &code, &verifier, REDIRECT_URI).await.0, 200);
    let again = redeem(&world, &code, &verifier, REDIRECT_URI).await;
    assert_eq!(refusal(&again), (400, "invalid_grant", 54005));
}

#[tokio::test]
async fn a_code_needs_its_redirect_uri_and_verifier() {
    let world = World::new();
    let AuthorizationCode { code, verifier } = code(&world).await;
    let cases = [
        (501_481, "invalid_grant", code.as_str(), "wrong", REDIRECT_URI),
        (501_481, "invalid_grant", &code, "", REDIRECT_URI),
        (500_112, "invalid_client", &code, &verifier, "http://localhost/other"),
        (70000, "invalid_grant", "unknown", &verifier, REDIRECT_URI),
    ];
    for (number, error, code, verifier, redirect_uri) in cases {
        let answer = redeem(&world, code, verifier, redirect_uri).await;
        assert_eq!(refusal(&answer), (400, error, number));
    }
    assert_eq!(redeem(&world, &code, &verifier, REDIRECT_URI).await.0, 200);
}

#[tokio::test]
async fn a_refresh_token_gives_new_tokens_and_a_new_refresh_token() {
    let world = World::new();
    let scope = world.api_scope("mcp.access");
    let first = world.sign_in("alice", &["offline_access", &scope]).await;
    let old = first.refresh_token.unwrap();
    let refresh = async |client: Uuid, token: &str| {
        world
            .token(&[("grant_type", "refresh_token"), ("client_id", &client.to_string()), ("refresh_token", token)])
            .await
    };
    let (status, answer) = refresh(world.desktop, &old).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(claims(&answer["access_token"])["oid"], json!(world.alice));
    let new = answer["refresh_token"].as_str().unwrap();
    assert_ne!(new, old);
    assert_eq!(refusal(&refresh(world.desktop, "unknown").await).2, 9_002_313);
    world.control().revoke(world.tenant, world.alice).unwrap();
    assert_eq!(refusal(&refresh(world.desktop, new).await), (400, "invalid_grant", 50173));
}

#[tokio::test]
async fn codes_and_tokens_of_one_client_are_refused_to_another() {
    let other = Uuid::new_v4();
    let world = World::with(|tenant| {
        let mut app = tenant.apps[1].clone();
        app.client_id = other;
        tenant.apps.push(app);
    });
    let client = other.to_string();
    let AuthorizationCode { code, verifier } = code(&world).await;
    let code_form = [
        ("grant_type", "authorization_code"),
        ("client_id", &client),
        ("code", &code),
        ("code_verifier", &verifier),
        ("redirect_uri", REDIRECT_URI),
    ];
    assert_eq!(refusal(&world.token(&code_form).await), (400, "invalid_grant", 70000));

    let tokens = world.sign_in("alice", &["offline_access", "User.Read"]).await;
    let refresh_token = tokens.refresh_token.unwrap();
    let form = [("grant_type", "refresh_token"), ("client_id", &client), ("refresh_token", &refresh_token)];
    assert_eq!(refusal(&world.token(&form).await), (400, "invalid_grant", 70000));
}

#[tokio::test]
async fn a_redirect_uri_matches_exactly_except_the_port_of_this_machine() {
    let world = World::with(|tenant| {
        tenant.apps[1].redirect_uris.push("https://app.contoso.com/callback".to_owned());
    });
    for known in [REDIRECT_URI, "http://localhost:49152/callback", "https://app.contoso.com/callback"] {
        let response = authorize(&world, &[("redirect_uri", known)]).await;
        assert_eq!(response.status(), 200, "{known}");
    }
    for unknown in [
        "http://localhost/other",
        "http://127.0.0.1/callback",
        "https://localhost/callback",
        "https://app.contoso.com:8443/callback",
        "https://app.contoso.com/callback/",
        "http://localhost.contoso.com/callback",
    ] {
        let response = authorize(&world, &[("redirect_uri", unknown)]).await;
        assert_eq!(response.status(), 400, "{unknown}");
        assert!(response.headers().get(LOCATION).is_none());
        assert!(response.text().await.unwrap().contains("AADSTS50011"));
    }
}

#[tokio::test]
async fn an_unknown_client_gets_a_page_and_no_redirect() {
    let world = World::new();
    let response = authorize(&world, &[("client_id", &Uuid::new_v4().to_string())]).await;
    assert_eq!(response.status(), 400);
    assert!(response.text().await.unwrap().contains("AADSTS700016"));
}

#[tokio::test]
async fn other_errors_go_to_the_client_with_its_state() {
    let world = World::new();
    let cases = [
        ("invalid_request", "AADSTS900144", ("scope", "")),
        ("unsupported_response_type", "AADSTS700054", ("response_type", "id_token")),
        ("invalid_resource", "AADSTS500011", ("scope", "api://nowhere/x")),
        ("invalid_target", "AADSTS9010010", ("resource", "https://mcp.contoso.com/mcp")),
        ("login_required", "AADSTS50058", ("prompt", "none")),
    ];
    for (error, code, change) in cases {
        let response = authorize(&world, &[change]).await;
        assert_eq!(response.status(), 302, "{change:?}");
        assert_eq!(redirected(&response, "error").as_deref(), Some(error));
        assert!(redirected(&response, "error_description").unwrap().starts_with(code));
        assert_eq!(redirected(&response, "state").as_deref(), Some("a \"state\" <&>"));
    }
}

#[tokio::test]
async fn the_page_escapes_everything_that_it_repeats() {
    let world = World::new();
    let page = authorize(&world, &[]).await.text().await.unwrap();
    assert!(page.contains("VS &lt;Code&gt;") && !page.contains("VS <Code>"), "{page}");
    assert!(page.contains("alice@contoso.com") && page.contains("bob@contoso.com"));
    assert!(!page.contains("\"a \"state\" <&>\""));
}

#[tokio::test]
async fn form_post_returns_the_code_in_a_form() {
    let world = World::new();
    let form = [
        ("client_id", world.desktop.to_string()),
        ("response_type", "code".to_owned()),
        ("redirect_uri", REDIRECT_URI.to_owned()),
        ("scope", world.api_scope("mcp.access")),
        ("response_mode", "form_post".to_owned()),
        ("state", "s".to_owned()),
        ("emulator_user", "alice@contoso.com".to_owned()),
    ];
    let url = format!("{}/{}/oauth2/v2.0/authorize", EMULATOR.authority(), world.tenant);
    let response = world.http.post(url).form(&form).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let page = response.text().await.unwrap();
    assert!(page.contains(&format!("action=\"{REDIRECT_URI}\"")) && page.contains("name=\"code\""), "{page}");
}

#[tokio::test]
async fn an_unknown_or_disabled_user_cannot_sign_in() {
    let world = World::with(|tenant| tenant.users[1].account_enabled = false);
    for (user, code) in [("carol@contoso.com", "AADSTS50034"), ("bob@contoso.com", "AADSTS50057")] {
        let refused = SignIn {
            authority: &world.authority(),
            tenant: world.tenant,
            client: world.desktop,
            redirect_uri: REDIRECT_URI,
            user,
            scopes: &["User.Read"],
            claims: None,
        };
        let text = refused.tokens().await.unwrap_err().to_string();
        assert!(text.contains(code), "{text}");
    }
}
