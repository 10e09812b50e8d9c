//! Tests of client_credentials, and of client assertions as federated credentials.

use std::net::TcpListener;

use entra_emulator::{
    Configuration, EntraEmulator, FederatedCredential, FederatedIdentity, TOKEN_EXCHANGE_AUDIENCE, Tenant,
};
use serde_json::json;
use uuid::Uuid;

use crate::world::{EMULATOR, JWT_BEARER, SUBJECT, World, claims, now, refusal};

#[tokio::test]
async fn an_external_token_that_a_credential_names_gets_an_app_only_token() {
    let world = World::new();
    let (status, answer) = world.app_only(&world.right_assertion()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["token_type"], "Bearer");
    assert!(answer.get("scope").is_none() && answer.get("refresh_token").is_none());
    let token = claims(&answer["access_token"]);
    assert_eq!(token["aud"], json!(world.api));
    assert_eq!(token["iss"], format!("{}/{}/v2.0", EMULATOR.authority(), world.tenant));
    assert_eq!(token["azp"], json!(world.daemon));
    assert_eq!(token["azpacr"], "2");
    assert_eq!(token["idtyp"], "app");
    assert_eq!(token["roles"], json!(["Mcp.Job"]));
    assert_eq!(token["oid"], token["sub"]);
    assert!(token.get("scp").is_none());

    let logged = world.requests().pop().unwrap();
    assert_eq!(logged.grant_type.as_deref(), Some("client_credentials"));
    assert_eq!(logged.client, Some(world.daemon.to_string()));
    assert_eq!(logged.aadsts, None);
    assert!(!logged.client_secret_present);
    let presented = FederatedIdentity {
        issuer: world.issuer(),
        subject: SUBJECT.to_owned(),
        audience: TOKEN_EXCHANGE_AUDIENCE.to_owned(),
    };
    assert_eq!(logged.federated, Some(presented));
}

#[tokio::test]
async fn an_application_without_a_role_gets_a_token_without_roles() {
    let world = World::with(|tenant| tenant.apps[0].role_assignments.clear());
    let (status, answer) = world.app_only(&world.right_assertion()).await;
    assert_eq!(status, 200, "{answer}");
    assert!(claims(&answer["access_token"]).get("roles").is_none());
}

#[tokio::test]
async fn each_mismatch_of_an_external_token_has_its_own_code() {
    let world = World::new();
    let now = now();
    let cases = [
        (700_211, json!({}), json!({"iss": format!("{}/", world.issuer())})),
        (700_213, json!({}), json!({"sub": "system:serviceaccount:productivity:other"})),
        (7_002_138, json!({}), json!({"sub": SUBJECT.to_uppercase()})),
        (700_212, json!({}), json!({"aud": ["api://azureadtokenexchange"]})),
        (5_002_741, json!({}), json!({"aud": [TOKEN_EXCHANGE_AUDIENCE, "other"]})),
        (5_002_741, json!({}), json!({"aud": null})),
        (700_024, json!({}), json!({"exp": now - 10})),
        (700_024, json!({}), json!({"nbf": now + 900})),
        (70023, json!({}), json!({"exp": now + 26 * 3600})),
        (7_000_272, json!({"kid": "unknown"}), json!({})),
        (5_002_730, json!({"alg": "HS256"}), json!({})),
        (5_002_730, json!({"alg": "none"}), json!({})),
    ];
    for (code, header, changes) in cases {
        let answer = world.app_only(&world.external_token(header.clone(), changes.clone())).await;
        assert_eq!(refusal(&answer), (401, "invalid_client", code), "{header} {changes}");
        assert_eq!(world.requests().pop().unwrap().aadsts.map(u64::from), Some(code));
    }
    let answer = world.app_only("no token").await;
    assert_eq!(refusal(&answer), (400, "invalid_request", 50027));
}

#[tokio::test]
async fn a_signature_of_another_token_is_refused() {
    let world = World::new();
    let right = world.right_assertion();
    let other = world.external_token(json!({}), json!({"jti": "other"}));
    let (message, _) = right.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    let answer = world.app_only(&format!("{message}.{signature}")).await;
    assert_eq!(refusal(&answer), (401, "invalid_client", 700_027));
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_found() {
    let world = World::new();
    world.control().roll_signing_key(world.cluster).unwrap();
    assert_eq!(world.app_only(&world.right_assertion()).await.0, 200);
}

#[tokio::test]
async fn an_unreachable_issuer_is_a_transient_error() {
    let world = World::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = format!("https://localhost:{}", free.port());
    // The tenant is found by its domain, but its document names it by its id.
    let misnamed = format!("{}/{}.test/v2.0", EMULATOR.authority(), world.cluster);
    for (code, issuer) in [(90061, unreachable), (50166, misnamed)] {
        let credential =
            FederatedCredential { name: format!("credential {code}"), issuer: issuer.clone(), ..world.credential() };
        world.control().add_federated_credential(world.tenant, world.daemon, credential).unwrap();
        let answer = world.app_only(&world.external_token(json!({}), json!({"iss": issuer}))).await;
        assert_eq!(refusal(&answer), (400, "invalid_request", code));
    }
}

#[tokio::test]
async fn an_issuer_with_a_private_authority_is_fetched_only_if_that_is_trusted() {
    let world = World::new();
    let foreign = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let cluster = Uuid::new_v4();
    foreign.control().add_tenant(Tenant { id: cluster, ..Tenant::default() }).unwrap();
    let issuer = format!("{}/{cluster}/v2.0", foreign.authority());
    let credential = FederatedCredential { name: "foreign".to_owned(), issuer: issuer.clone(), ..world.credential() };
    world.control().add_federated_credential(world.tenant, world.daemon, credential).unwrap();
    let mut external = world.external_claims();
    external["iss"] = json!(issuer);
    let assertion = foreign.control().sign(cluster, &json!({}), &external).unwrap();

    assert_eq!(refusal(&world.app_only(&assertion).await).2, 90061);
    world.control().trust_ca_pem(foreign.ca_pem()).unwrap();
    assert_eq!(world.app_only(&assertion).await.0, 200);
}

#[tokio::test]
async fn a_credential_is_effective_from_its_addition_to_its_removal() {
    let world = World::new();
    let control = world.control();
    control.remove_federated_credential(world.tenant, world.daemon, "cluster").unwrap();
    let answer = world.app_only(&world.right_assertion()).await;
    assert_eq!(refusal(&answer), (401, "invalid_client", 70025), "there is none at all");
    let another = FederatedCredential {
        name: "another".to_owned(),
        issuer: "https://another.example".to_owned(),
        ..world.credential()
    };
    control.add_federated_credential(world.tenant, world.daemon, another).unwrap();
    let answer = world.app_only(&world.right_assertion()).await;
    assert_eq!(refusal(&answer), (401, "invalid_client", 700_211), "there is one of another issuer");
    control.add_federated_credential(world.tenant, world.daemon, world.credential()).unwrap();
    assert_eq!(world.app_only(&world.right_assertion()).await.0, 200);
}

#[tokio::test]
async fn a_client_secret_is_never_accepted() {
    let world = World::new();
    let (daemon, assertion) = (world.daemon.to_string(), world.right_assertion());
    let scope = world.api_scope(".default");
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &daemon),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", &assertion),
        ("scope", &scope),
    ];
    let with_secret = [&form[..], &[("client_secret", "s3cret")]].concat();
    let answer = world.token(&with_secret).await;
    assert_eq!(refusal(&answer), (401, "invalid_client", 7_000_215));
    assert!(answer.1["error_uri"].as_str().unwrap().ends_with("/error?code=7000215"));
    assert!(world.requests().pop().unwrap().client_secret_present);

    let basic = world.http.post(world.token_endpoint()).basic_auth(&daemon, Some("s3cret"));
    let basic = basic.form(&form).send().await.unwrap();
    assert_eq!(basic.status(), 401);
    assert!(world.requests().pop().unwrap().client_secret_present);
}

#[tokio::test]
async fn malformed_requests_get_an_error_with_the_problem() {
    let world = World::new();
    let (daemon, desktop) = (world.daemon.to_string(), world.desktop.to_string());
    let assertion = world.right_assertion();
    let default = world.api_scope(".default");
    let base = [
        ("client_id", daemon.as_str()),
        ("client_assertion_type", JWT_BEARER),
        ("client_assertion", assertion.as_str()),
    ];
    let credentials = ("grant_type", "client_credentials");
    let own_scope = world.api_scope("mcp.access");
    let unknown = Uuid::new_v4().to_string();
    let cases: [(u64, &str, u16, Vec<(&str, &str)>); 11] = [
        (900_144, "invalid_request", 400, base.to_vec()),
        (70003, "unsupported_grant_type", 400, [&base[..], &[("grant_type", "password")]].concat()),
        (900_144, "invalid_request", 400, [&base[..], &[credentials]].concat()),
        (1_002_012, "invalid_scope", 400, [&base[..], &[credentials, ("scope", &own_scope)]].concat()),
        (500_011, "invalid_resource", 400, [&base[..], &[credentials, ("scope", "api://nowhere/.default")]].concat()),
        (9_000_411, "invalid_request", 400, [&base[..], &[credentials, credentials]].concat()),
        (7_000_218, "invalid_client", 401, vec![credentials, ("client_id", &daemon), ("scope", &default)]),
        (7_000_218, "invalid_client", 401, vec![credentials, ("client_id", &desktop), ("scope", &default)]),
        (700_016, "unauthorized_client", 400, vec![credentials, ("client_id", &unknown), ("scope", &default)]),
        (
            9_010_010,
            "invalid_target",
            400,
            [&base[..], &[credentials, ("scope", &default), ("resource", "https://graph.mcp.contoso.com/mcp")]]
                .concat(),
        ),
        (
            700_025,
            "invalid_client",
            401,
            vec![credentials, ("client_id", &desktop), ("client_assertion", &assertion), ("scope", &default)],
        ),
    ];
    for (code, error, status, form) in cases {
        assert_eq!(refusal(&world.token(&form).await), (status, error, code), "{form:?}");
    }
}

#[tokio::test]
async fn a_resource_parameter_that_is_an_identifier_uri_is_accepted() {
    let world = World::new();
    let (status, _) = world
        .token(&[
            ("grant_type", "client_credentials"),
            ("client_id", &world.daemon.to_string()),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &world.right_assertion()),
            ("scope", &world.api_scope(".default")),
            ("resource", &format!("api://{}", world.api)),
        ])
        .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn an_error_has_entras_shape() {
    let world = World::new();
    let correlation = Uuid::new_v4().to_string();
    let response = world
        .http
        .post(world.token_endpoint())
        .header("client-request-id", &correlation)
        .form(&[("grant_type", "client_credentials")])
        .send()
        .await
        .unwrap();
    let headers = response.headers().clone();
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(headers["x-ms-request-id"], body["trace_id"].as_str().unwrap());
    assert_eq!(headers["cache-control"], "no-store, no-cache");
    assert_eq!(body["correlation_id"], json!(correlation));
    let (trace, time) = (body["trace_id"].as_str().unwrap(), body["timestamp"].as_str().unwrap());
    let text = body["error_description"].as_str().unwrap();
    assert!(text.ends_with(&format!("Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}")), "{text}");
    assert!(jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%SZ", time).is_ok(), "{time}");
}

#[tokio::test]
async fn a_tenant_is_found_only_by_its_id_or_domain() {
    let world = World::new();
    let domain = format!("{}.test", world.tenant);
    for (tenant, status, code) in
        [(domain.as_str(), 401, 7_000_218), ("nowhere.test", 400, 90002), ("common", 400, 50059)]
    {
        let url = format!("{}/{tenant}/oauth2/v2.0/token", EMULATOR.authority());
        let form = [("grant_type", "client_credentials"), ("client_id", &world.daemon.to_string())];
        let response = world.http.post(url).form(&form).send().await.unwrap();
        let answer = (response.status().as_u16(), response.json().await.unwrap());
        let (found_status, _, found_code) = refusal(&answer);
        assert_eq!((found_status, found_code), (status, code), "{tenant}");
    }
}
