//! Access tokens: one that is good, and every way in which one change makes it bad.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_entra_policy::{CallerKind, Groups};
use mcp_entra_server::token::{Membership, Principal, Remedy, TokenError, TokenValidator};
use serde_json::{Value, json};
use uuid::Uuid;

use super::validator;
use crate::tenant::{ALICE, BOB, ROLE, SCOPE, TestTenant, control, issuer};

/// A member of a token to change: `None` removes it.
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
    // RFC 6750 section 3: what error_description may hold.
    let text = error.to_string();
    assert!(text.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E)), "{text}");
    error
}

async fn accepted(validator: &TokenValidator, token: &str) -> std::sync::Arc<Principal> {
    validator.validate(token).await.unwrap()
}

/// A token with these parts in place of its header and claims, under its old signature.
fn with_parts(token: &str, header: Option<&str>, claims: Option<&str>) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let part = |replacement: Option<&str>, old: &str| match replacement {
        Some(text) => URL_SAFE_NO_PAD.encode(text),
        None => old.to_owned(),
    };
    format!("{}.{}.{}", part(header, parts[0]), part(claims, parts[1]), parts[2])
}

fn header_of(token: &str) -> Value {
    let header = token.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
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
    assert!(user.scopes.contains(SCOPE), "{:?}", user.scopes);
    assert!(user.roles.contains(ROLE), "{:?}", user.roles);
    assert_eq!((user.membership, user.accepts_claims_challenge), (Membership::Member, false));
    assert_eq!(principal.caller().kind, CallerKind::User);
    assert!(!format!("{principal:?}").contains(&token), "the token is not for logs");
}

#[tokio::test]
async fn a_users_groups_are_known_only_if_the_token_lists_them() {
    let tenant = TestTenant::new();
    let validator = validator(&tenant).await;
    let bob = accepted(&validator, &tenant.token(BOB)).await;
    assert_eq!(bob.caller().groups, Groups::Known([tenant.sales.to_string()].into()));
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
async fn an_application_needs_a_role_to_be_let_in_and_is_no_user() {
    let tenant = TestTenant::new();
    let validator = validator(&tenant).await;
    let token = |daemon| tenant.sign(&json!({}), &tenant.application_claims(daemon));
    let principal = accepted(&validator, &token(tenant.daemon)).await;
    assert!(matches!(&*principal, Principal::Application(application) if application.roles.contains(ROLE)));
    assert_eq!(principal.client_id(), tenant.daemon.to_string());
    assert_eq!(principal.caller().kind, CallerKind::Application);
    let error = refused(&validator, &token(tenant.daemon_without_role)).await;
    assert_eq!((&error, error.remedy()), (&TokenError::ApplicationWithoutRole, Remedy::Administrator));
}

#[tokio::test]
async fn each_single_change_to_a_good_claim_is_refused_for_its_own_reason() {
    let tenant = TestTenant::new();
    let validator = validator(&tenant).await;
    let good = tenant.claims(ALICE);
    accepted(&validator, &tenant.sign(&json!({}), &good)).await;

    let now = jiff::Timestamp::now().as_second();
    let (ours, another) = (tenant.server.to_string(), Uuid::new_v4().to_string());
    let issuer = good["iss"].as_str().unwrap();
    let elsewhere = issuer.replace(&tenant.id.to_string(), &another);
    let v1 = format!("https://sts.windows.net/{}/", tenant.id);
    let table: Vec<(Vec<Change<'_>>, &str)> = vec![
        (vec![("aud", None)], "bad_claim"),
        (vec![("aud", Some(json!([ours])))], "bad_claim"),
        (vec![("aud", Some(json!(another)))], "another_audience"),
        (vec![("aud", Some(json!(ours.to_uppercase())))], "another_audience"),
        (vec![("aud", Some(json!(format!("api://{ours}/"))))], "another_audience"),
        (vec![("aud", Some(json!("")))], "another_audience"),
        (vec![("aud", Some(json!("https://graph.microsoft.com/")))], "graph_token"),
        (vec![("aud", Some(json!("00000003-0000-0000-c000-000000000000")))], "graph_token"),
        (vec![("iss", None)], "bad_claim"),
        (vec![("iss", Some(json!("")))], "another_issuer"),
        (vec![("iss", Some(json!(elsewhere)))], "another_issuer"),
        (vec![("iss", Some(json!(format!("{issuer}/"))))], "another_issuer"),
        (vec![("iss", Some(json!(format!("https://login.microsoftonline.us/{}/v2.0", tenant.id))))], "another_issuer"),
        (vec![("iss", Some(json!(v1)))], "another_issuer"),
        (vec![("iss", Some(json!(v1))), ("ver", Some(json!("1.0")))], "version_1_token"),
        (vec![("tid", None)], "bad_claim"),
        (vec![("tid", Some(json!([tenant.id])))], "bad_claim"),
        (vec![("tid", Some(json!(another)))], "another_tenant"),
        (vec![("iss", Some(json!(elsewhere))), ("tid", Some(json!(another)))], "another_tenant"),
        (vec![("ver", None)], "bad_claim"),
        (vec![("ver", Some(json!("1.0")))], "version_1_token"),
        (vec![("exp", None)], "bad_claim"),
        (vec![("exp", Some(json!((now + 600).to_string())))], "bad_claim"),
        (vec![("exp", Some(json!(-1)))], "bad_claim"),
        (vec![("exp", Some(json!(now - 120)))], "expired"),
        (vec![("nbf", None)], "bad_claim"),
        (vec![("nbf", Some(json!(now + 120)))], "not_yet_valid"),
        (vec![("iat", None)], "bad_claim"),
        (vec![("iat", Some(json!(now + 120)))], "not_yet_valid"),
        (vec![("cnf", Some(json!({ "jwk": {} })))], "bound_token"),
        (vec![("scp", None)], "id_token"),
        (vec![("scp", Some(json!("")))], "neither_user_nor_application"),
        (vec![("scp", Some(json!([SCOPE])))], "bad_claim"),
        (vec![("scp", Some(json!("other.scope")))], "scope_missing"),
        (vec![("scp", Some(json!("MCP.ACCESS")))], "scope_missing"),
        (vec![("idtyp", Some(json!("app")))], "neither_user_nor_application"),
        (vec![("idtyp", Some(json!(1)))], "bad_claim"),
        (vec![("oid", None)], "bad_claim"),
        (vec![("oid", Some(json!("../me")))], "bad_claim"),
        (vec![("azp", None)], "bad_claim"),
        (vec![("azp", Some(json!("a client")))], "bad_claim"),
        (vec![("roles", Some(json!(ROLE)))], "bad_claim"),
        (vec![("roles", Some(json!([1])))], "bad_claim"),
        (vec![("groups", Some(json!("all")))], "bad_claim"),
    ];
    for (changes, reason) in table {
        let token = tenant.sign(&json!({}), &changed(good.clone(), &changes));
        assert_eq!(refused(&validator, &token).await.reason(), reason, "{changes:?}");
    }
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
async fn each_change_to_header_signature_or_form_is_refused_for_its_own_reason() {
    let tenant = TestTenant::new();
    let validator = validator(&tenant).await;
    let claims = tenant.claims(ALICE);
    let good = tenant.token(ALICE);
    let header = header_of(&good);
    let kid = header["kid"].as_str().unwrap();
    let text = claims.to_string();
    let tampered = changed(claims.clone(), &[("roles", Some(json!(["Mcp.Admin"])))]).to_string();
    let duplicate = format!(r#"{{"aud":"{}",{}"#, Uuid::new_v4(), &text[1..]);
    let deep = text.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(40), "]".repeat(40)), 1);
    let signature = good.rsplit('.').next().unwrap();
    let foreign = |kid: &str, extra: Option<Value>| {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
        header.kid = Some(kid.to_owned());
        header.jwk = extra.map(|jwk| serde_json::from_value(jwk).unwrap());
        issuer().sign_with_header(&header, &claims).unwrap()
    };

    let table: Vec<(&str, String, &str)> = vec![
        ("alg none", tenant.sign(&json!({ "alg": "none" }), &claims), "algorithm_not_accepted"),
        ("alg HS256 with the public key", tenant.sign(&json!({ "alg": "HS256" }), &claims), "algorithm_not_accepted"),
        (
            "alg None",
            with_parts(&good, Some(&json!({ "alg": "None", "kid": kid }).to_string()), None),
            "algorithm_not_accepted",
        ),
        (
            "alg RS512",
            with_parts(&good, Some(&json!({ "alg": "RS512", "kid": kid }).to_string()), None),
            "algorithm_not_accepted",
        ),
        ("no alg", with_parts(&good, Some(&json!({ "kid": kid }).to_string()), None), "algorithm_not_accepted"),
        ("crit", tenant.sign(&json!({ "crit": ["exp"] }), &claims), "critical_header"),
        ("unknown crit", tenant.sign(&json!({ "crit": ["b64"], "b64": false }), &claims), "critical_header"),
        ("no kid", tenant.sign(&json!({ "kid": null }), &claims), "malformed_token"),
        ("unknown kid", tenant.sign(&json!({ "kid": "unknown" }), &claims), "unknown_key"),
        ("empty kid", tenant.sign(&json!({ "kid": "" }), &claims), "unknown_key"),
        ("another key under this kid", foreign(kid, None), "bad_signature"),
        ("another key, embedded", foreign(kid, Some(issuer().jwk.clone())), "bad_signature"),
        (
            "another key, embedded, under its kid",
            foreign("service-account-key", Some(issuer().jwk.clone())),
            "unknown_key",
        ),
        ("changed claims", with_parts(&good, None, Some(&tampered)), "bad_signature"),
        ("no signature", good.replace(signature, ""), "bad_signature"),
        ("cut signature", good[..good.len() - 4].to_owned(), "bad_signature"),
        ("padded signature", format!("{good}=="), "bad_signature"),
        ("duplicate claim", with_parts(&good, None, Some(&duplicate)), "malformed_token"),
        (
            "duplicate header",
            with_parts(&good, Some(&format!(r#"{{"alg":"none",{}"#, &header.to_string()[1..])), None),
            "malformed_token",
        ),
        ("deep nesting", with_parts(&good, None, Some(&deep)), "malformed_token"),
        ("claims not an object", with_parts(&good, None, Some("[]")), "malformed_token"),
        ("empty", String::new(), "malformed_token"),
        ("opaque", "0123456789abcdef".to_owned(), "malformed_token"),
        ("two parts", "e30.e30".to_owned(), "malformed_token"),
        ("four parts", format!("{good}.{signature}"), "malformed_token"),
        ("trailing space", format!("{good} "), "bad_signature"),
        ("not base64url", good.replacen("ey", "e+", 1), "malformed_token"),
    ];
    for (what, token, reason) in table {
        assert_eq!(refused(&validator, &token).await.reason(), reason, "{what}: {token}");
    }
    // The same claims in another order of members are not malformed: it is the duplicate that is.
    assert_eq!(
        refused(&validator, &with_parts(&good, None, Some(&format!(" {text}")))).await.reason(),
        "bad_signature"
    );
}

#[tokio::test]
async fn a_keys_issuer_must_be_the_tokens_even_if_the_tenants_document_publishes_the_key() {
    let tenant = TestTenant::new();
    let issuer = format!("{}/{}", tenant.configuration().entra.authority, tenant.id);
    let keys: Value =
        crate::tenant::http().get(format!("{issuer}/discovery/v2.0/keys")).send().await.unwrap().json().await.unwrap();
    let of_another_tenant = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| !key["issuer"].as_str().unwrap().contains("{tenantid}"))
        .expect("Entra publishes the key of the tenant for personal accounts everywhere");
    let token = tenant.sign(&json!({ "kid": of_another_tenant["kid"] }), &tenant.claims(ALICE));
    assert_eq!(refused(&validator(&tenant).await, &token).await.reason(), "key_of_another_issuer");
}

#[tokio::test]
async fn keys_named_in_the_header_are_never_fetched() {
    let tenant = TestTenant::new();
    let url = format!("{}/openid/v1/jwks", issuer().url);
    for member in ["jku", "x5u"] {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
        header.kid = Some("service-account-key".to_owned());
        match member {
            "jku" => header.jku = Some(url.clone()),
            _ => header.x5u = Some(url.clone()),
        }
        let token = issuer().sign_with_header(&header, &tenant.claims(ALICE)).unwrap();
        assert_eq!(refused(&validator(&tenant).await, &token).await.reason(), "unknown_key", "{member}");
    }
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
    // For the very app registration whose audience the server accepts, signed with the same key, roles included.
    let claims = control().id_token_claims(tenant.id, tenant.server, ALICE).unwrap();
    assert!(claims.contains_key("roles"));
    let error = refused(&validator(&tenant).await, &tenant.sign(&json!({}), &Value::Object(claims))).await;
    assert_eq!(error, TokenError::IdToken { scope: format!("api://{}/{SCOPE}", tenant.server) });
}

#[tokio::test]
async fn a_token_for_graph_is_recognised_as_one_although_its_signature_cannot_be_verified() {
    let tenant = TestTenant::new();
    let scope = "https://graph.microsoft.com/User.Read";
    let token = control().mint_user_access_token(tenant.id, tenant.client, ALICE, scope).unwrap();
    let error = refused(&validator(&tenant).await, &token).await;
    assert_eq!(error.reason(), "graph_token");
    assert!(error.to_string().contains(&format!("api://{}/{SCOPE}", tenant.server)), "{error}");
}

#[tokio::test]
async fn a_token_of_another_tenant_is_told_which_tenant_is_served() {
    let (tenant, other) = (TestTenant::new(), TestTenant::new());
    let error = refused(&validator(&tenant).await, &other.token(ALICE)).await;
    assert_eq!(error, TokenError::Tenant { tenant: other.id.to_string(), expected: tenant.id.to_string() });
}

#[tokio::test]
async fn a_version_1_token_is_told_how_to_become_a_version_2_token() {
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
async fn a_token_without_the_required_scope_is_told_which_to_request_and_can_be_met_by_the_client() {
    let tenant = TestTenant::new();
    let claims = changed(tenant.claims(ALICE), &[("scp", Some(json!("openid other.scope")))]);
    let error = refused(&validator(&tenant).await, &tenant.sign(&json!({}), &claims)).await;
    assert_eq!(error.remedy(), Remedy::MoreScopes);
    assert!(error.to_string().contains(&format!("api://{}/{SCOPE}", tenant.server)), "{error}");
    let expired = changed(tenant.claims(ALICE), &[("exp", Some(json!(1)))]);
    let error = refused(&validator(&tenant).await, &tenant.sign(&json!({}), &expired)).await;
    assert_eq!(error.remedy(), Remedy::AnotherToken);
    assert!(error.to_string().contains(" days ago"), "{error}");
}
