//! Tests of access tokens: the principal of a valid one, and the answer to a caller with a wrong one. The cases in
//! which one change makes a token invalid are in `refusals`.

use mcp_entra_policy::{CallerKind, Groups};
use mcp_entra_server::token::{Membership, Principal, Remedy, TokenError, TokenValidator};
use serde_json::{Value, json};

use super::validator;
use crate::tenant::{ALICE, BOB, ROLE, SCOPE, TestTenant, control};

/// Change of a token's member: `None` removes it.
type Change<'a> = (&'a str, Option<Value>);

fn changed(mut claims: Value, changes: &[Change<'_>]) -> Value {
    let object = claims.as_object_mut().unwrap();
    for (name, value) in changes {
        match value {
            Some(value) => object.insert((*name).to_owned(), value.clone()),
            None => object.remove(*name),
        };
    }
    claims
}

async fn refused(validator: &TokenValidator, token: &str) -> TokenError {
    let error = match validator.validate(token).await {
        Ok(principal) => panic!("accepted: {principal:?}"),
        Err(error) => error,
    };
    // RFC 6750 section 3: characters of error_description.
    let text = error.to_string();
    assert!(text.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E)), "{text}");
    error
}

async fn accepted(validator: &TokenValidator, token: &str) -> std::sync::Arc<Principal> {
    validator.validate(token).await.unwrap()
}

#[tokio::test]
async fn a_users_token_says_who_the_user_is_and_what_the_client_may_do() {
    let tenant = TestTenant::new();
    let token = tenant.token(ALICE);
    let principal = accepted(&validator(&tenant).await, &token).await;
    let claims = tenant.claims(ALICE);
    assert_eq!(principal.tenant_id(), tenant.id.to_string());
    assert_eq!(principal.object_id(), claims["oid"]);
    assert_eq!(principal.client_id(), tenant.client.to_string());
    let Principal::User(user) = &*principal else { panic!("{principal:?}") };
    assert!(user.caller.scopes.contains(SCOPE), "{:?}", user.caller.scopes);
    assert!(user.caller.roles.contains(ROLE), "{:?}", user.caller.roles);
    assert_eq!((user.membership, user.accepts_claims_challenge), (Membership::Member, false));
    assert_eq!(principal.caller().kind, CallerKind::User);
    assert!(!format!("{principal:?}").contains(&token), "the token is not for logs");
}

#[tokio::test]
async fn a_users_groups_are_known_only_if_the_token_lists_them() {
    let tenant = TestTenant::new();
    let validator = validator(&tenant).await;
    let bob = accepted(&validator, &tenant.token(BOB)).await;
    assert_eq!(bob.caller().groups, Groups::Known([tenant.sales].into_iter().collect()));
    let without = changed(tenant.claims(BOB), &[("groups", None)]);
    let bob = accepted(&validator, &tenant.sign(&json!({}), &without)).await;
    assert_eq!(bob.caller().groups, Groups::Unknown);
}

#[tokio::test]
async fn a_client_that_can_answer_claims_challenges_says_so_in_the_token() {
    let tenant = TestTenant::new();
    let capable = changed(tenant.claims(ALICE), &[("xms_cc", Some(json!(["cp1"])))]);
    let principal = accepted(&validator(&tenant).await, &tenant.sign(&json!({}), &capable)).await;
    assert!(matches!(&*principal, Principal::User(user) if user.accepts_claims_challenge));
}

#[tokio::test]
async fn an_application_needs_a_role_for_access_and_is_no_user() {
    let tenant = TestTenant::new();
    let validator = validator(&tenant).await;
    let token = |daemon| tenant.sign(&json!({}), &tenant.application_claims(daemon));
    let principal = accepted(&validator, &token(tenant.daemon)).await;
    assert!(matches!(&*principal, Principal::Application(application) if application.caller.roles.contains(ROLE)));
    assert_eq!(principal.client_id(), tenant.daemon.to_string());
    assert_eq!(principal.caller().kind, CallerKind::Application);
    let error = refused(&validator, &token(tenant.daemon_without_role)).await;
    assert_eq!((&error, error.remedy()), (&TokenError::ApplicationWithoutRole, Remedy::Administrator));
}

#[tokio::test]
async fn the_application_id_uri_and_configured_audiences_are_accepted_as_audience_too() {
    let tenant = TestTenant::new();
    let mut configuration = tenant.configuration();
    configuration.entra.audiences = vec!["https://graph.mcp.contoso.com/mcp".to_owned()];
    let keys = mcp_entra_server::token::Keys::new(crate::tenant::http(), &configuration.entra);
    keys.refresh().await.unwrap();
    let validator = TokenValidator::new(&configuration, keys.into());
    for audience in [format!("api://{}", tenant.server), "https://graph.mcp.contoso.com/mcp".to_owned()] {
        let claims = changed(tenant.claims(ALICE), &[("aud", Some(json!(audience)))]);
        accepted(&validator, &tenant.sign(&json!({}), &claims)).await;
    }
    let claims = changed(tenant.claims(ALICE), &[("aud", Some(json!("https://graph.mcp.contoso.com/mc")))]);
    assert_eq!(refused(&validator, &tenant.sign(&json!({}), &claims)).await.reason(), "another_audience");
}

#[tokio::test]
async fn a_token_of_16_kib_is_read_and_a_longer_one_is_not() {
    let tenant = TestTenant::new();
    let validator = validator(&tenant).await;
    let padded = |length: usize| {
        let claims = changed(tenant.claims(ALICE), &[("padding", Some(json!("x".repeat(length))))]);
        tenant.sign(&json!({}), &claims)
    };
    let overhead = padded(0).len();
    let room = (16 * 1024 - overhead) * 3 / 4;
    let longest = padded(room - 4);
    assert!((16 * 1024 - 16..=16 * 1024).contains(&longest.len()), "{}", longest.len());
    accepted(&validator, &longest).await;
    assert_eq!(refused(&validator, &padded(room + 4)).await, TokenError::TooLong);
}

#[tokio::test]
async fn an_id_token_is_recognised_as_one() {
    let tenant = TestTenant::new();
    // For the same app registration whose audience the server accepts, signed with the same key, with roles.
    let claims = control().id_token_claims(tenant.id, tenant.server, ALICE).unwrap();
    assert!(claims.contains_key("roles"));
    let error = refused(&validator(&tenant).await, &tenant.sign(&json!({}), &Value::Object(claims))).await;
    assert_eq!(error, TokenError::IdToken { scope: format!("{}/{SCOPE}", tenant.server) });
}

#[tokio::test]
async fn a_token_for_graph_is_recognised_as_one_although_its_signature_cannot_be_verified() {
    let tenant = TestTenant::new();
    let scope = "https://graph.microsoft.com/User.Read";
    let token = control().mint_user_access_token(tenant.id, tenant.client, ALICE, scope).unwrap();
    let error = refused(&validator(&tenant).await, &token).await;
    assert_eq!(error.reason(), "graph_token");
    assert!(error.to_string().contains(&format!("{}/{SCOPE}", tenant.server)), "{error}");
}

#[tokio::test]
async fn the_refusal_of_a_token_of_another_tenant_names_the_served_tenant() {
    let (tenant, other) = (TestTenant::new(), TestTenant::new());
    let error = refused(&validator(&tenant).await, &other.token(ALICE)).await;
    assert_eq!(error, TokenError::Tenant { tenant: other.id.to_string(), expected: tenant.id.to_string() });
}

#[tokio::test]
async fn the_refusal_of_a_version_1_token_explains_how_to_get_version_2() {
    let tenant = TestTenant::new();
    let server = tenant.server;
    control()
        .change_tenant(tenant.id, |directory| {
            for app in directory.apps.iter_mut().filter(|app| app.client_id == server) {
                app.requested_access_token_version = entra_emulator::TokenVersion::V1;
            }
            Ok(())
        })
        .unwrap();
    let error = refused(&validator(&tenant).await, &tenant.token(ALICE)).await;
    assert_eq!(error, TokenError::Version1);
    assert!(error.to_string().contains("requestedAccessTokenVersion to 2"), "{error}");
}

#[tokio::test]
async fn the_refusal_of_a_token_without_the_required_scope_names_the_scope_to_request() {
    let tenant = TestTenant::new();
    let claims = changed(tenant.claims(ALICE), &[("scp", Some(json!("openid other.scope")))]);
    let error = refused(&validator(&tenant).await, &tenant.sign(&json!({}), &claims)).await;
    assert_eq!(error.remedy(), Remedy::MoreScopes);
    assert!(error.to_string().contains(&format!("{}/{SCOPE}", tenant.server)), "{error}");
    let expired = changed(tenant.claims(ALICE), &[("exp", Some(json!(1)))]);
    let error = refused(&validator(&tenant).await, &tenant.sign(&json!({}), &expired)).await;
    assert_eq!(error.remedy(), Remedy::AnotherToken);
    assert!(error.to_string().contains(" days ago"), "{error}");
}

#[tokio::test]
async fn the_refusal_of_a_token_of_another_cloud_names_the_issuer_although_its_key_is_unknown() {
    let tenant = TestTenant::new();
    let issuer = format!("https://login.microsoftonline.us/{}/v2.0", tenant.id);
    let claims = changed(tenant.claims(ALICE), &[("iss", Some(json!(issuer)))]);
    let error = refused(&validator(&tenant).await, &tenant.sign(&json!({ "kid": "of-that-cloud" }), &claims)).await;
    let expected = format!("{}/{}/v2.0", tenant.configuration().entra.authority, tenant.id);
    assert_eq!(error, TokenError::Issuer { expected });
}

#[tokio::test]
async fn a_guest_is_recognised_as_one() {
    let tenant = TestTenant::new();
    let claims = changed(tenant.claims(ALICE), &[("idp", Some(json!("https://sts.windows.net/9999/")))]);
    let principal = accepted(&validator(&tenant).await, &tenant.sign(&json!({}), &claims)).await;
    assert!(matches!(&*principal, Principal::User(user) if user.membership == Membership::Guest));
}

#[tokio::test]
async fn the_refusal_of_a_token_has_the_difference_of_times() {
    let tenant = TestTenant::new();
    let validator = validator(&tenant).await;
    let now = jiff::Timestamp::now().as_second();
    let token = |name, seconds: i64| {
        tenant.sign(&json!({}), &changed(tenant.claims(ALICE), &[(name, Some(json!(now + seconds)))]))
    };
    let error = refused(&validator, &token("exp", -12 * 60 - 5)).await.to_string();
    assert!(error.contains("expired 12 minutes ago"), "{error}");
    let error = refused(&validator, &token("nbf", 3 * 3600 + 300)).await.to_string();
    assert!(error.contains("becomes valid in 3 hours"), "{error}");
}
