//! Tests of the identity for a backend: an assertion that it can verify but not use elsewhere, or a token of Entra for
//! the backend itself.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use entra_emulator::App;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use mcp_entra_policy::{
    BackendConfiguration, BackendIdentity, BackendScope, BackendSessions, BackendTransport, HttpBackend,
    ServerConfiguration,
};
use mcp_entra_server::backend_identity::{BackendIdentities, BackendIdentityError, LIFETIME, TOKEN_TYPE, Told};
use mcp_entra_server::entra::SignIn;
use mcp_entra_server::token::Principal;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{signed_in, sts, validator};
use crate::harness::{ON_BEHALF_OF, Setup};
use crate::tenant::{ALICE, BOB, ROLE, TestTenant, control};

const AUDIENCE: &str = "mcp-entra-backend:productivity/graph";
const ISSUER: &str = "mcp-entra:productivity/graph";

fn with_backend(mut configuration: ServerConfiguration, identity: BackendIdentity) -> ServerConfiguration {
    configuration.graph.tools.clear();
    configuration.backend = Some(BackendConfiguration {
        transport: BackendTransport::StreamableHttp(HttpBackend { port: 3001, path: "/mcp".to_owned() }),
        identity,
        sessions: BackendSessions::PerPrincipal,
        pin: None,
    });
    configuration.validate().unwrap();
    configuration
}

fn identities(tenant: &TestTenant, identity: BackendIdentity) -> BackendIdentities {
    BackendIdentities::new(&with_backend(tenant.configuration(), identity), sts(tenant)).unwrap()
}

fn assertions(tenant: &TestTenant) -> BackendIdentities {
    identities(tenant, BackendIdentity::Assertion {})
}

async fn daemon(tenant: &TestTenant) -> Arc<Principal> {
    let token = tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon));
    validator(tenant).await.validate(&token).await.unwrap()
}

async fn assertion(identities: &BackendIdentities, principal: &Principal, target: &str) -> String {
    match identities.tell(principal, target).await.unwrap() {
        Told::Assertion(assertion) => assertion.expose_secret().to_owned(),
        other => panic!("no assertion: {other:?}"),
    }
}

/// The claims, if a backend with these expectations accepts the assertion.
pub(crate) fn verified(assertion: &str, jwks: &Value, audience: &str) -> Option<Value> {
    let keys: JwkSet = serde_json::from_value(jwks.clone()).unwrap();
    let header = decode_header(assertion).unwrap();
    assert_eq!(header.typ.as_deref(), Some(TOKEN_TYPE));
    let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap())?).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["aud", "exp", "iss", "sub"]);
    decode(assertion, &key, &validation).ok().map(|token| token.claims)
}

#[tokio::test]
async fn a_backend_verifies_caller_and_tool_with_the_published_key() {
    let tenant = TestTenant::new();
    let (identities, alice) = (assertions(&tenant), signed_in(&tenant, ALICE).await);
    let jwks = identities.jwks().unwrap();
    let claims = verified(&assertion(&identities, &alice, "get_time").await, &jwks, AUDIENCE).unwrap();
    let oid = tenant.user_id(ALICE).to_string();
    let expected = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": oid, "oid": oid, "tid": tenant.id, "azp": tenant.client,
        "idtyp": "user", "roles": [ROLE], "target": "get_time",
        "iat": claims["iat"], "nbf": claims["iat"], "exp": claims["exp"], "jti": claims["jti"],
    });
    assert_eq!(claims, expected, "nothing else, and no name");
    let [from, until] = ["iat", "exp"].map(|name| claims[name].as_i64().unwrap());
    assert_eq!(until - from, LIFETIME);
    assert!(LIFETIME <= 60 && (jiff::Timestamp::now().as_second() - from) < 30);

    let daemon = daemon(&tenant).await;
    let claims = verified(&assertion(&identities, &daemon, "get_time").await, &jwks, AUDIENCE).unwrap();
    assert_eq!((&claims["idtyp"], &claims["oid"]), (&json!("app"), &json!(daemon.object_id())));
    let bob = signed_in(&tenant, BOB).await;
    let claims = verified(&assertion(&identities, &bob, "get_time").await, &jwks, AUDIENCE).unwrap();
    assert_eq!(claims["roles"], json!([]));
}

#[tokio::test]
async fn every_assertion_is_different() {
    let tenant = TestTenant::new();
    let (identities, alice) = (assertions(&tenant), signed_in(&tenant, ALICE).await);
    let jwks = identities.jwks().unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let claims = verified(&assertion(&identities, &alice, "get_time").await, &jwks, AUDIENCE).unwrap();
        ids.push(claims["jti"].as_str().unwrap().parse::<Uuid>().unwrap());
    }
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

#[tokio::test]
async fn an_assertion_that_was_changed_or_is_for_another_backend_or_of_another_process_is_refused() {
    let tenant = TestTenant::new();
    let (identities, alice) = (assertions(&tenant), signed_in(&tenant, ALICE).await);
    let jwks = identities.jwks().unwrap();
    let good = assertion(&identities, &alice, "get_time").await;
    assert!(verified(&good, &jwks, AUDIENCE).is_some());
    assert!(verified(&good, &jwks, "mcp-entra-backend:productivity/other").is_none());
    assert!(verified(&good, &assertions(&tenant).jwks().unwrap(), AUDIENCE).is_none());
    let bob = signed_in(&tenant, BOB).await;
    let bobs = assertion(&identities, &bob, "get_time").await;
    let [mut parts, of_bob] = [&good, &bobs].map(|jwt| Vec::from_iter(jwt.split('.')));
    parts[1] = of_bob[1];
    assert!(verified(&parts.join("."), &jwks, AUDIENCE).is_none());
}

#[tokio::test]
async fn an_assertion_gives_no_access_to_the_endpoint() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    let (identities, alice) = (assertions(tenant), signed_in(tenant, ALICE).await);
    let assertion = assertion(&identities, &alice, "get_user_details").await;
    let response = site.call(&assertion, "get_user_details", json!({})).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(site.audit_of(&response).await["reason"], "algorithm_not_accepted");
    assert_eq!(site.call(&tenant.token(ALICE), "get_user_details", json!({})).await.status(), 200);
}

#[tokio::test]
async fn the_admin_port_publishes_the_key_of_assertions_only_if_there_are_any() {
    let mut setup = Setup::new();
    setup.configuration = with_backend(setup.configuration, BackendIdentity::Assertion {});
    let site = setup.start().await;
    let response = site.admin("/backend/jwks.json").await;
    assert_eq!(
        (response.status(), &response.headers()["cache-control"]),
        (StatusCode::OK, &"max-age=60".parse().unwrap())
    );
    let jwks: JwkSet = response.json().await.unwrap();
    assert_eq!(jwks.keys.len(), 1);
    assert_eq!(site.http.get(site.url("/backend/jwks.json")).send().await.unwrap().status(), 404);
    let without = Setup::new().start().await;
    assert_eq!(without.admin("/backend/jwks.json").await.status(), 404);
}

#[tokio::test]
async fn without_a_backend_or_an_identity_nothing_is_sent() {
    let tenant = TestTenant::new();
    let alice = signed_in(&tenant, ALICE).await;
    let none = BackendIdentities::new(&tenant.configuration(), sts(&tenant)).unwrap();
    for identities in [none, identities(&tenant, BackendIdentity::None)] {
        assert!(matches!(identities.tell(&alice, "get_time").await.unwrap(), Told::Nothing));
        assert!(identities.jwks().is_none());
    }
}

/// Adds the app registration of a backend. The server may request tokens of users for it, or not.
pub(crate) fn registered(tenant: &TestTenant, consented: bool) -> (Uuid, BackendIdentity) {
    let backend = Uuid::new_v4();
    let app = App {
        client_id: backend,
        identifier_uris: vec![format!("api://{backend}")],
        scopes: vec!["access".to_owned()],
        pre_authorized_clients: consented.then_some(tenant.server).into_iter().collect(),
        ..App::default()
    };
    control()
        .change_tenant(tenant.id, |directory| {
            directory.apps.push(app);
            Ok(())
        })
        .unwrap();
    (backend, BackendIdentity::OnBehalfOf(BackendScope { scope: format!("api://{backend}/access") }))
}

fn token(told: &Told) -> &str {
    match told {
        Told::Token(token) => token.expose_secret(),
        other => panic!("no token: {other:?}"),
    }
}

pub(crate) fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn a_backend_gets_a_token_of_the_user_for_itself_which_gives_no_access_here() {
    let tenant = TestTenant::new();
    let (backend, identity) = registered(&tenant, true);
    let (identities, alice) = (identities(&tenant, identity), signed_in(&tenant, ALICE).await);
    let told = identities.tell(&alice, "get_time").await.unwrap();
    let claims = claims(token(&told));
    assert_eq!((&claims["aud"], &claims["scp"]), (&json!(backend), &json!("access")));
    assert_eq!((&claims["oid"], &claims["azp"]), (&json!(alice.object_id()), &json!(tenant.server)));
    let error = validator(&tenant).await.validate(token(&told)).await.err().unwrap();
    assert_eq!(error.reason(), "another_audience");
    identities.tell(&alice, "another_tool").await.unwrap();
    assert_eq!(tenant.grants(ON_BEHALF_OF), 1, "kept for the next call");
    assert!(identities.jwks().is_none());
}

#[tokio::test]
async fn an_application_is_refused_with_a_reason_if_the_backend_is_called_on_behalf_of_users() {
    let tenant = TestTenant::new();
    let (_, identity) = registered(&tenant, true);
    let error = identities(&tenant, identity).tell(&*daemon(&tenant).await, "get_time").await.unwrap_err();
    assert!(matches!(error, BackendIdentityError::NoUser) && error.sign_in().is_none());
    assert!(error.told().contains("the caller is an application") && error.told().contains("sign in as a user"));
    assert_eq!(tenant.grants(ON_BEHALF_OF), 0, "Entra is not asked");
}

#[tokio::test]
async fn missing_consent_for_the_backend_is_refused_with_the_scope_and_the_next_step() {
    let tenant = TestTenant::new();
    let (backend, identity) = registered(&tenant, false);
    let sts = sts(&tenant);
    let configuration = with_backend(tenant.configuration(), identity);
    let identities = BackendIdentities::new(&configuration, Arc::clone(&sts)).unwrap();
    let alice = signed_in(&tenant, ALICE).await;
    let error = identities.tell(&alice, "get_time").await.unwrap_err();
    let text = error.told();
    for part in [&*format!("the scope api://{backend}/access"), "AADSTS65001", "Grant admin consent", "Entra says:"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(error.sign_in(), None);
    assert!(sts.unconsented(&configuration.graph.base_url).is_empty());
    assert_eq!(Vec::from_iter(sts.unconsented(&format!("api://{backend}"))), ["access"]);
}

/// A 401 of a backend that requires these claims.
fn asking_for(claims: &Value) -> HeaderMap {
    let value = format!(r#"Bearer error="insufficient_claims", claims="{}""#, STANDARD.encode(claims.to_string()));
    HeaderMap::from_iter([(WWW_AUTHENTICATE, value.parse().unwrap())])
}

#[tokio::test]
async fn a_token_that_the_backend_rejects_is_replaced_once_for_all_calls() {
    let tenant = TestTenant::new();
    let (_, identity) = registered(&tenant, true);
    let (identities, alice) = (identities(&tenant, identity), signed_in(&tenant, ALICE).await);
    let rejected = identities.tell(&alice, "get_time").await.unwrap();
    let headers = asking_for(&json!({ "access_token": { "nbf": { "essential": true, "value": "1" } } }));
    let replaced = identities.tell_anew(&alice, &rejected, &headers).await.unwrap().unwrap();
    assert_ne!(token(&rejected), token(&replaced));
    let late = identities.tell_anew(&alice, &rejected, &headers).await.unwrap().unwrap();
    let kept = identities.tell(&alice, "get_time").await.unwrap();
    assert!(token(&late) == token(&replaced) && token(&kept) == token(&replaced));
    assert_eq!(tenant.grants(ON_BEHALF_OF), 2);
    assert!(matches!(identities.sign_in(&headers), Some(SignIn::Satisfying(_))));
}

#[tokio::test]
async fn a_backend_without_tokens_of_entra_causes_no_sign_in() {
    let tenant = TestTenant::new();
    let (identities, alice) = (assertions(&tenant), signed_in(&tenant, ALICE).await);
    let told = identities.tell(&alice, "get_time").await.unwrap();
    let headers = asking_for(&json!({ "access_token": { "acrs": { "essential": true, "value": "c1" } } }));
    assert_eq!(identities.sign_in(&headers), None);
    assert!(identities.tell_anew(&alice, &told, &headers).await.unwrap().is_none());
}
