//! Tests of Entra's signing keys: the times of fetches, and failures of fetches.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entra_emulator::{Fault, FaultKind, Host, Matcher};
use mcp_entra_server::token::{Keys, Principal, Remedy, TokenValidator};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::tenant::{ALICE, SCOPE, TestTenant, control, http};

const DISCOVERY: &str = "/v2.0/.well-known/openid-configuration";
const KEYS: &str = "/discovery/v2.0/keys";

fn keys_of(tenant: &TestTenant) -> (Arc<Keys>, TokenValidator) {
    let configuration = tenant.configuration();
    let keys = Arc::new(Keys::new(http(), &configuration.entra));
    (Arc::clone(&keys), TokenValidator::new(&configuration, keys))
}

fn fetches(tenant: &TestTenant) -> usize {
    tenant.requests().iter().filter(|request| request.path.ends_with(KEYS)).count()
}

/// Sets the answer to the next request for this document of the tenant.
fn answer(tenant: &TestTenant, path: &str, status: u16, body: &str) {
    let matcher = Matcher {
        host: Some(Host::Authority),
        tenant: Some(tenant.id),
        path: Some(path.to_owned()),
        ..Matcher::default()
    };
    let kind = FaultKind::Status { status, headers: [].into(), body: body.to_owned() };
    control().inject(Fault { matcher, times: 1, kind }).unwrap();
}

#[tokio::test]
async fn all_calls_are_refused_before_keys_were_fetched() {
    let tenant = TestTenant::new();
    let (keys, validator) = keys_of(&tenant);
    let error = validator.validate(&tenant.token(ALICE)).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Patience);
    assert_eq!(error.reason(), "keys_unavailable");
    assert_eq!((keys.status().count, keys.status().age_seconds), (0, None));
    assert_eq!(fetches(&tenant), 0, "a caller must not be able to make the server ask Entra");

    keys.refresh().await.unwrap();
    validator.validate(&tenant.token(ALICE)).await.unwrap();
    assert!(keys.status().count >= 1 && keys.status().age_seconds.is_some() && keys.status().error.is_none());
}

#[tokio::test]
async fn keys_are_fetched_automatically_once_entra_answers() {
    let tenant = TestTenant::new();
    let (keys, validator) = keys_of(&tenant);
    answer(&tenant, DISCOVERY, 503, "");
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (keys, stop) = (Arc::clone(&keys), stop.clone());
        async move { keys.run(stop).await }
    });
    let arrived = async {
        while keys.status().count == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), arrived).await.unwrap();
    validator.validate(&tenant.token(ALICE)).await.unwrap();
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_has_it_and_forged_key_ids_cause_no_further_requests() {
    let tenant = TestTenant::new();
    let (keys, validator) = keys_of(&tenant);
    keys.refresh().await.unwrap();
    let before = tenant.token(ALICE);
    control().roll_signing_key(tenant.id).unwrap();
    let after = tenant.token(ALICE);
    assert_ne!(before.split('.').next(), after.split('.').next(), "the kid did not change");

    let together = (0..20).map(|_| validator.validate(&after));
    assert!(futures::future::join_all(together).await.iter().all(Result::is_ok));
    assert_eq!(fetches(&tenant), 2, "concurrent misses are one request");
    validator.validate(&before).await.unwrap();

    let forged: Vec<_> = (0..20)
        .map(|number| tenant.sign(&json!({ "kid": format!("forged-{number}") }), &tenant.claims(ALICE)))
        .collect();
    for result in futures::future::join_all(forged.iter().map(|token| validator.validate(token))).await {
        assert_eq!(result.unwrap_err().reason(), "unknown_key");
    }
    assert_eq!(fetches(&tenant), 2);
}

#[tokio::test]
async fn the_last_valid_keys_stay_in_use_while_entra_returns_nothing_usable() {
    let tenant = TestTenant::new();
    let (keys, validator) = keys_of(&tenant);
    keys.refresh().await.unwrap();
    let configuration = tenant.configuration();
    let (authority, issuer) =
        (&configuration.entra.authority, format!("{}/{}/v2.0", configuration.entra.authority, tenant.id));
    let discovery = |issuer: &str, jwks_uri: &str| json!({ "issuer": issuer, "jwks_uri": jwks_uri }).to_string();
    let table = [
        (DISCOVERY, 503, String::new(), "503"),
        (DISCOVERY, 302, String::new(), "302"),
        (DISCOVERY, 200, "<html>".to_owned(), "not usable"),
        (DISCOVERY, 200, discovery("https://elsewhere.example/v2.0", &format!("{authority}{KEYS}")), "its issuer is"),
        (DISCOVERY, 200, discovery(&issuer, "https://elsewhere.example/keys"), "is not on"),
        (DISCOVERY, 200, discovery(&issuer, &format!("{authority}.elsewhere.example/keys")), "is not on"),
        (KEYS, 500, String::new(), "500"),
        (KEYS, 200, "{}".to_owned(), "not usable"),
        (KEYS, 200, r#"{"keys":[]}"#.to_owned(), "no RSA signing key"),
        (KEYS, 200, r#"{"keys":[],"keys":[]}"#.to_owned(), "occurs twice"),
        (KEYS, 200, format!(r#"{{"keys":[],"padding":"{}"}}"#, "x".repeat(1024 * 1024)), "longer than"),
    ];
    for (path, status, body, problem) in table {
        answer(&tenant, path, status, &body);
        let error = keys.refresh().await.unwrap_err().to_string();
        assert!(error.contains(problem), "{problem} is not in: {error}");
        assert_eq!(keys.status().error, Some(error));
        validator.validate(&tenant.token(ALICE)).await.unwrap();
    }
    keys.refresh().await.unwrap();
    assert_eq!(keys.status().error, None);
}

/// Key set of the tenant, for changes by a test.
async fn published(tenant: &TestTenant) -> Value {
    let url = format!("{}/{}{KEYS}", tenant.configuration().entra.authority, tenant.id);
    http().get(url).send().await.unwrap().json().await.unwrap()
}

fn key_id(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_is_not_verified_again_while_its_validation_is_current() {
    let tenant = TestTenant::new();
    let (keys, validator) = keys_of(&tenant);
    keys.refresh().await.unwrap();
    let token = tenant.token(ALICE);
    let first = validator.validate(&token).await.unwrap();
    let again = validator.validate(&token).await.unwrap();
    assert!(Arc::ptr_eq(first.caller(), again.caller()));
    let Principal::User(user) = &*again else { panic!("an application") };
    assert_eq!(user.assertion.token().await.unwrap().expose_secret(), token);
    keys.refresh().await.unwrap();
    let again = validator.validate(&token).await.unwrap();
    assert!(Arc::ptr_eq(first.caller(), again.caller()), "the key is still published");
    let another = validator.validate(&tenant.token(ALICE)).await.unwrap();
    assert!(!Arc::ptr_eq(first.caller(), another.caller()), "another token of the same user");

    let claims = json!({ "exp": jiff::Timestamp::now().as_second() - 10 });
    let mut expired = tenant.claims(ALICE);
    expired.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let token = tenant.sign(&json!({}), &expired);
    let first = validator.validate(&token).await.unwrap();
    let again = validator.validate(&token).await.unwrap();
    assert!(!Arc::ptr_eq(first.caller(), again.caller()), "only valid within the clock skew");
}

#[tokio::test]
async fn the_end_of_a_keys_publication_ends_its_validations() {
    let tenant = TestTenant::new();
    let (keys, validator) = keys_of(&tenant);
    keys.refresh().await.unwrap();
    let token = tenant.token(ALICE);
    validator.validate(&token).await.unwrap();
    let (signed_with, mut published) = (key_id(&token), published(&tenant).await);
    let all = published["keys"].as_array_mut().unwrap();
    let revoked = all.iter().position(|key| key["kid"] == signed_with).unwrap();

    let mut replaced = json!({ "keys": all });
    replaced["keys"][revoked]["n"] = all[(revoked + 1) % all.len()]["n"].clone();
    answer(&tenant, KEYS, 200, &replaced.to_string());
    keys.refresh().await.unwrap();
    let error = validator.validate(&token).await.unwrap_err();
    assert_eq!(error.reason(), "bad_signature", "another key under the same id");

    keys.refresh().await.unwrap();
    validator.validate(&token).await.unwrap();
    all.remove(revoked);
    // Once for the refresh, once for the token with an unknown key.
    answer(&tenant, KEYS, 200, &published.to_string());
    answer(&tenant, KEYS, 200, &published.to_string());
    keys.refresh().await.unwrap();
    assert_eq!(validator.validate(&token).await.unwrap_err().reason(), "unknown_key");
}

/// Returns the verdict on a token with these claims, with this change of each published key of the tenant.
async fn accepted(
    tenant: &TestTenant,
    change: impl Fn(&mut serde_json::Map<String, Value>),
    claims: &Value,
) -> Result<(), &'static str> {
    let (keys, validator) = keys_of(tenant);
    let mut document = published(tenant).await;
    document["keys"].as_array_mut().unwrap().iter_mut().for_each(|key| change(key.as_object_mut().unwrap()));
    answer(tenant, KEYS, 200, &document.to_string());
    if let Err(error) = keys.refresh().await {
        assert!(error.to_string().contains("no RSA signing key of this cloud"), "{error}");
        return Err("no_keys");
    }
    validator.validate(&tenant.sign(&json!({}), claims)).await.map(|_| ()).map_err(|error| error.reason())
}

#[tokio::test]
async fn a_key_that_names_no_issuer_is_good_for_its_tenant_whose_tokens_still_name_theirs() {
    let tenant = TestTenant::new();
    let claims = tenant.claims(ALICE);
    let without = |key: &mut serde_json::Map<String, Value>| _ = key.remove("issuer");
    assert_eq!(accepted(&tenant, without, &claims).await, Ok(()));
    for issuer in ["https://login.microsoftonline.com/common/v2.0", "", "https://sts.windows.net/"] {
        let mut claims = claims.clone();
        claims["iss"] = json!(issuer);
        assert_eq!(accepted(&tenant, without, &claims).await, Err("another_issuer"), "{issuer}");
    }
    let anothers = |key: &mut serde_json::Map<String, Value>| {
        _ = key.insert("issuer".to_owned(), json!("https://login.microsoftonline.com/{tenantid}/v2.0"));
    };
    assert_eq!(accepted(&tenant, anothers, &claims).await, Err("key_of_another_issuer"));
}

#[tokio::test]
async fn a_key_of_the_clouds_own_name_is_good_and_one_of_another_cloud_is_not() {
    let tenant = TestTenant::new();
    let of_cloud = |cloud: &'static str| {
        move |key: &mut serde_json::Map<String, Value>| {
            _ = key.insert("cloud_instance_name".to_owned(), json!(cloud));
        }
    };
    let claims = tenant.claims(ALICE);
    assert_eq!(accepted(&tenant, of_cloud("microsoftonline.com"), &claims).await, Ok(()));
    assert_eq!(accepted(&tenant, of_cloud("microsoftonline.us"), &claims).await, Err("no_keys"));
}

#[tokio::test]
async fn a_token_that_is_signed_by_the_app_registrations_own_key_is_accepted_and_by_anothers_is_not() {
    let tenant = TestTenant::new();
    let (server, scope) = (tenant.server, format!("api://{}/{SCOPE}", tenant.server));
    let own_key = |own| {
        control()
            .change_tenant(tenant.id, |directory| {
                let app = directory.apps.iter_mut().find(|app| app.client_id == server).unwrap();
                app.own_signing_key = own;
                Ok(())
            })
            .unwrap();
    };
    own_key(true);
    let (keys, validator) = keys_of(&tenant);
    keys.refresh().await.unwrap();
    let token = control().mint_user_access_token(tenant.id, tenant.client, ALICE, &scope).unwrap();
    assert_ne!(key_id(&token), key_id(&tenant.token(ALICE)), "the key is the application's own");
    validator.validate(&token).await.unwrap();
    validator.validate(&tenant.token(ALICE)).await.expect("the tenant's own keys are published, too");

    // The key is no longer valid for this registration.
    own_key(false);
    keys.refresh().await.unwrap();
    assert_eq!(validator.validate(&token).await.unwrap_err().reason(), "unknown_key");
}

#[tokio::test]
async fn keys_are_fetched_one_at_a_time_so_that_a_slow_answer_cannot_replace_a_newer_one() {
    let tenant = TestTenant::new();
    let (keys, _) = keys_of(&tenant);
    let matcher = Matcher { host: Some(Host::Authority), tenant: Some(tenant.id), ..Matcher::default() };
    control().inject(Fault { matcher, times: 6, kind: FaultKind::Delay { milliseconds: 50 } }).unwrap();
    let (first, second, third) = tokio::join!(keys.refresh(), keys.refresh(), keys.refresh());
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    let together: Vec<usize> = tenant.requests().iter().map(|request| request.concurrent).collect();
    assert_eq!(together, [1; 6]);
}
