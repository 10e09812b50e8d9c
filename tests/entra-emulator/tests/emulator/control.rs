//! Tests of the control operations: faults, limits of federated credentials, forged tokens, the clock.

use entra_emulator::{Configuration, EntraEmulator, Fault, FaultKind, Host, Matcher, Tenant};
use serde_json::json;
use uuid::Uuid;

use crate::world::{EMULATOR, World, claims, part, refusal};

#[tokio::test]
async fn a_fault_applies_to_its_requests_and_its_number_of_times() {
    let world = World::new();
    let control = world.control();
    let matcher =
        Matcher { tenant: Some(world.tenant), grant_type: Some("client_credentials".to_owned()), ..Matcher::default() };
    let kind = FaultKind::Status {
        status: 429,
        headers: [("Retry-After".to_owned(), "2.128".to_owned())].into(),
        body: "{}".to_owned(),
    };
    control.inject(Fault { matcher, times: 2, kind }).unwrap();
    assert_eq!(World::new().app_only("x").await.0, 400, "another tenant");
    assert_eq!(world.on_behalf_of(&world.user_token("alice"), "User.Read").await.0, 200, "another grant");
    for status in [429, 429, 200] {
        assert_eq!(world.app_only(&world.right_assertion()).await.0, status);
    }
}

#[tokio::test]
async fn a_fault_can_refuse_as_entra_does() {
    let world = World::new();
    let claims = json!({"access_token": {"acrs": {"essential": true, "value": "c1"}}}).to_string();
    let fault = json!({
        "matcher": {"tenant": world.tenant, "path": "/oauth2/v2.0/token"},
        "times": 1,
        "kind": {"aadsts": {
            "code": 50076, "error": "invalid_grant", "suberror": "basic_action",
            "message": "Due to a configuration change, you must use multi-factor authentication.",
            "claims": claims,
        }},
    });
    let url = format!("{}/_control/faults", EMULATOR.authority());
    assert_eq!(world.http.post(url).json(&fault).send().await.unwrap().status(), 204);
    let answer = world.on_behalf_of(&world.user_token("alice"), "User.Read").await;
    assert_eq!(refusal(&answer), (400, "invalid_grant", 50076));
    assert_eq!(answer.1["suberror"], "basic_action");
    assert_eq!(answer.1["claims"], json!(claims), "a string that holds JSON");
    assert_eq!(world.requests().pop().unwrap().aadsts, Some(50076));
}

#[tokio::test]
async fn graph_can_be_made_to_fail() {
    let world = World::new();
    let matcher = Matcher { host: Some(Host::Graph), tenant: Some(world.tenant), ..Matcher::default() };
    let kind = FaultKind::Status { status: 503, headers: [].into(), body: "{}".to_owned() };
    world.control().inject(Fault { matcher, times: 1, kind }).unwrap();
    let token = world.graph_token("alice", "User.Read");
    assert_eq!(world.graph("/me", &token).await.0, 503);
    assert_eq!(world.graph("/me", &token).await.0, 200);
}

#[tokio::test]
async fn an_app_has_at_most_twenty_credentials_of_different_issuers_and_subjects() {
    let world = World::new();
    let control = world.control();
    let add = |number: usize, subject: &str| {
        let mut credential = world.credential();
        credential.name = format!("credential-{number}");
        credential.subject = subject.to_owned();
        control.add_federated_credential(world.tenant, world.api, credential)
    };
    assert!(add(1, &world.credential().subject).is_err(), "the same issuer and subject");
    for number in 1..20 {
        add(number, &format!("subject {number}")).unwrap();
    }
    assert!(add(20, "subject 20").is_err(), "the twenty-first");
    control.remove_federated_credential(world.tenant, world.api, "credential-7").unwrap();
    assert!(control.remove_federated_credential(world.tenant, world.api, "credential-7").is_err());
    assert!(add(8, "subject 21").is_err(), "a name that is taken");
    add(20, "subject 20").unwrap();
}

#[tokio::test]
async fn tokens_can_be_signed_with_any_claims_and_header() {
    let world = World::new();
    let control = world.control();
    let token = control.sign(world.tenant, &json!({"typ": null, "crit": ["x"]}), &json!({"any": "thing"})).unwrap();
    assert_eq!(claims(&json!(token)), json!({"any": "thing"}));
    let header = part(&token, 0);
    assert!(header.get("typ").is_none() && header["crit"] == json!(["x"]) && header["alg"] == "RS256");
    assert!(control.sign(world.tenant, &json!({"alg": "none"}), &json!({})).unwrap().ends_with('.'));
    assert!(control.sign(world.tenant, &json!({"alg": "ES256"}), &json!({})).is_err());
    assert!(control.sign(Uuid::new_v4(), &json!({}), &json!({})).is_err());
}

#[tokio::test]
async fn an_inconsistent_change_has_no_effect() {
    let world = World::new();
    let refused = world.control().change_tenant(world.tenant, |tenant| {
        tenant.apps[0].role_assignments[0].role = Some("Mcp.Unknown".to_owned());
        Ok(())
    });
    assert!(refused.unwrap_err().to_string().contains("Mcp.Unknown"));
    assert_eq!(claims(&json!(world.user_token("alice")))["roles"], json!(["Mcp.Reader"]));
    world
        .control()
        .change_tenant(world.tenant, |tenant| {
            tenant.apps[0].role_assignments.clear();
            Ok(())
        })
        .unwrap();
    assert!(claims(&json!(world.user_token("alice"))).get("roles").is_none());
}

#[tokio::test]
async fn a_moved_clock_moves_tokens_with_it() {
    // A separate emulator, since all tests share the clock of one.
    let emulator = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let (tenant, client) = (Uuid::new_v4(), Uuid::new_v4());
    let directory = serde_json::from_value::<Tenant>(json!({
        "id": tenant,
        "apps": [{"clientId": client, "publicClient": true}],
        "users": [{"oid": Uuid::new_v4(), "userPrincipalName": "alice@contoso.com"}],
    }));
    let control = emulator.control();
    control.add_tenant(directory.unwrap()).unwrap();
    let token = control.mint_user_access_token(tenant, client, "alice@contoso.com", "User.Read").unwrap();
    let http = entra_emulator::sign_in::http_client(emulator.ca_pem()).unwrap();
    let me = async || {
        let url = format!("{}/v1.0/me", emulator.graph());
        http.get(url).bearer_auth(&token).send().await.unwrap().status().as_u16()
    };
    assert_eq!(me().await, 200);
    control.advance_clock(3600);
    assert_eq!(me().await, 401);
}

#[tokio::test]
async fn control_over_http_returns_the_reason_of_a_refusal() {
    let world = World::new();
    let url = format!("{}/_control/tenants", EMULATOR.authority());
    let response = world.http.post(url).json(&json!({"id": world.tenant})).send().await.unwrap();
    assert_eq!(response.status(), 400);
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["error"], format!("the tenant {} exists already", world.tenant));
}
