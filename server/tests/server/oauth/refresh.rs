//! Tests of refresh tokens: each works once, and needs Entra.

use std::collections::{BTreeMap, BTreeSet};

use entra_emulator::{Fault, FaultKind, Host, Matcher, RoleAssignment};
use futures::future::join_all;
use serde_json::json;

use super::by_hand::decoded;
use super::mcp_client::{McpClient, Tokens, error, tokens};
use super::site::OAuthSite;
use crate::harness::eventually;
use crate::tenant::{ALICE, BOB, ROLE, control};

/// Makes the tenant's next refreshes fail this way.
fn fail_refreshes(site: &OAuthSite, times: u32, kind: FaultKind) {
    let matcher = Matcher {
        tenant: Some(site.site.setup.tenant.id),
        host: Some(Host::Authority),
        grant_type: Some("refresh_token".to_owned()),
        ..Matcher::default()
    };
    control().inject(Fault { matcher, times, kind }).unwrap();
}

fn status(status: u16, headers: &[(&str, &str)], body: &str) -> FaultKind {
    let headers: BTreeMap<_, _> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    FaultKind::Status { status, headers, body: body.to_owned() }
}

fn refusal(code: u32, suberror: Option<&str>) -> FaultKind {
    FaultKind::Aadsts {
        code,
        status: 400,
        error: "invalid_grant".to_owned(),
        message: "refused".to_owned(),
        suberror: suberror.map(str::to_owned),
        claims: None,
    }
}

/// Asserts that the session of these tokens has ended for good.
async fn has_ended(client: &McpClient<'_>, tokens: &Tokens) {
    let refused = client.refresh(&tokens.refresh_token).await;
    assert_eq!((refused.status().as_u16(), error(refused).await.as_str()), (400, "invalid_grant"));
    let site = &client.site.site;
    let ended = async || (site.rpc(&tokens.access_token, "ping", json!({})).await.status() == 401).then_some(());
    eventually("the access token is refused", ended).await;
}

#[tokio::test]
async fn twenty_refreshes_at_once_are_one_family_and_a_later_reuse_ends_it() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let first = client.sign_in(ALICE).await;
    let answers = join_all((0..20).map(|_| client.refresh(&first.refresh_token))).await;
    let mut successors = BTreeSet::new();
    for answer in answers {
        successors.insert(tokens(answer).await.refresh_token);
    }
    assert_eq!(successors.len(), 1, "callers have different successors");
    let second = successors.pop_first().unwrap();
    let third = tokens(client.refresh(&second).await).await;
    site.site.rpc(&third.access_token, "ping", json!({})).await.error_for_status().unwrap();
    // Its successor was used, so it can only be a stolen one.
    assert_eq!(error(client.refresh(&first.refresh_token).await).await, "invalid_grant");
    has_ended(&client, &third).await;
    site.audited("refresh_token_reused").await;
    client.sign_in(ALICE).await;
}

#[tokio::test]
async fn a_thief_and_the_owner_cannot_both_continue() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let stolen = client.sign_in(ALICE).await.refresh_token;
    let thief = tokens(client.refresh(&stolen).await).await;
    let thief = tokens(client.refresh(&thief.refresh_token).await).await;
    assert_eq!(error(client.refresh(&stolen).await).await, "invalid_grant");
    has_ended(&client, &thief).await;
}

#[tokio::test]
async fn a_refresh_token_only_works_for_its_client_and_server() {
    let site = OAuthSite::new().await;
    let (client, other) = (McpClient::register(&site).await, McpClient::register(&site).await);
    let tokens_of_client = client.sign_in(ALICE).await;
    let refused = other.refresh(&tokens_of_client.refresh_token).await;
    assert_eq!((refused.status().as_u16(), error(refused).await.as_str()), (400, "invalid_grant"));
    for (name, value, expected) in [
        ("client_id", "", "invalid_request"),
        ("refresh_token", "", "invalid_request"),
        ("refresh_token", "unknown", "invalid_grant"),
        ("resource", "https://evil.example/mcp", "invalid_target"),
    ] {
        let usual = [
            ("grant_type", "refresh_token"),
            ("client_id", client.id.as_str()),
            ("refresh_token", &tokens_of_client.refresh_token),
        ];
        let form = usual.into_iter().filter(|(known, _)| *known != name).chain([(name, value)]);
        let form: Vec<_> = form.filter(|(_, value)| !value.is_empty()).collect();
        assert_eq!(error(client.ask(&form).await).await, expected, "{name} {value}");
    }
    // None of these ended it.
    tokens(client.refresh(&tokens_of_client.refresh_token).await).await;
}

#[tokio::test]
async fn a_scope_in_a_refresh_adds_nothing() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let first = client.sign_in(BOB).await;
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", &client.id),
        ("refresh_token", &first.refresh_token),
        ("scope", "mcp.access other.scope graph:Mail.Read"),
    ];
    let second = tokens(client.ask(&form).await).await;
    assert_eq!(second.scope, "mcp.access");
    assert_eq!(decoded(&second.access_token).1["scp"], "mcp.access");
}

#[tokio::test]
async fn temporary_failures_of_entra_use_up_nothing() {
    let cases = [
        ("too many", status(429, &[("Retry-After", "1")], r#"{"error":"temporarily_unavailable"}"#)),
        ("down", status(503, &[], "down")),
        ("broken", status(500, &[], "")),
        ("no JSON", status(200, &[], "<html>")),
        ("cut", FaultKind::Disconnect),
        ("cut after the work", FaultKind::LoseAnswer),
        (
            "AADSTS90033",
            FaultKind::Aadsts {
                code: 90033,
                status: 503,
                error: "temporarily_unavailable".to_owned(),
                message: "a transient error".to_owned(),
                suberror: None,
                claims: None,
            },
        ),
    ];
    // Each lasts as long as the server's own retries.
    futures::future::join_all(cases.map(|(what, kind)| uses_up_nothing(what, kind))).await;
}

async fn uses_up_nothing(what: &str, kind: FaultKind) {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let first = client.sign_in(ALICE).await;
    // More often than the server's own retries.
    fail_refreshes(&site, 10, kind);
    let later = client.refresh(&first.refresh_token).await;
    assert_eq!(later.status(), 503, "{what}");
    assert!(later.headers().contains_key("retry-after"), "{what}");
    assert_eq!(error(later).await, "temporarily_unavailable", "{what}");
    assert_eq!(site.site.rpc(&first.access_token, "ping", json!({})).await.status(), 200, "{what}");
    clear(&site).await;
    tokens(client.refresh(&first.refresh_token).await).await;
}

/// Uses up the remaining faults of this tenant.
async fn clear(site: &OAuthSite) {
    let tenant = &site.site.setup.tenant;
    let entra = tenant.configuration().entra;
    let url = format!("{}/{}/oauth2/v2.0/token", entra.authority, tenant.id);
    for _ in 0..10 {
        _ = crate::tenant::http().post(&url).form(&[("grant_type", "refresh_token")]).send().await;
    }
}

#[tokio::test]
async fn every_withdrawal_in_entra_ends_the_session_at_the_next_refresh() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let tenant = &site.site.setup.tenant;
    let alice = tenant.user_id(ALICE);
    let first = client.sign_in(ALICE).await;
    control().set_account_enabled(tenant.id, alice, false).unwrap();
    has_ended(&client, &first).await;
    control().set_account_enabled(tenant.id, alice, true).unwrap();
    // It stays ended.
    has_ended(&client, &first).await;
    let second = client.sign_in(ALICE).await;
    control().revoke(tenant.id, alice).unwrap();
    has_ended(&client, &second).await;
    for (code, suberror) in [
        (50057, None),
        (50173, None),
        (700082, None),
        (50076, Some("basic_action")),
        (65001, Some("consent_required")),
        (53003, None),
        (50105, None),
    ] {
        let tokens = client.sign_in(ALICE).await;
        fail_refreshes(&site, 1, refusal(code, suberror));
        let refused = client.refresh(&tokens.refresh_token).await;
        assert_eq!((refused.status().as_u16(), error(refused).await.as_str()), (400, "invalid_grant"), "{code}");
        has_ended(&client, &tokens).await;
    }
}

#[tokio::test]
async fn a_consent_that_was_withdrawn_ends_the_session_at_the_next_refresh() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let tenant = &site.site.setup.tenant;
    let first = client.sign_in(ALICE).await;
    control()
        .change_tenant(tenant.id, |directory| {
            for app in directory.apps.iter_mut().filter(|app| app.client_id == tenant.server) {
                app.consent = entra_emulator::Consent::AdminOnly;
            }
            Ok(())
        })
        .unwrap();
    control().withdraw_consent(tenant.id, tenant.server, None).unwrap();
    let refused = client.refresh(&first.refresh_token).await;
    let gone = refused.status();
    assert_eq!(gone, 400, "{}", refused.text().await.unwrap());
    has_ended(&client, &first).await;
}

#[tokio::test]
async fn a_removed_role_is_missing_after_the_next_refresh_and_a_new_one_exists() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let tenant = &site.site.setup.tenant;
    let (alice, bob) = (client.sign_in(ALICE).await, client.sign_in(BOB).await);
    assert!(!site.site.tools(&alice.access_token).await.is_empty());
    control().unassign(tenant.id, tenant.server, tenant.user_id(ALICE)).unwrap();
    let assignment = RoleAssignment { principal: tenant.user_id(BOB), role: Some(ROLE.to_owned()) };
    control().assign(tenant.id, tenant.server, assignment).unwrap();
    let alice = tokens(client.refresh(&alice.refresh_token).await).await;
    assert!(site.site.tools(&alice.access_token).await.is_empty());
    assert_eq!(decoded(&alice.access_token).1.get("roles"), None);
    let bob = tokens(client.refresh(&bob.refresh_token).await).await;
    assert!(!site.site.tools(&bob.access_token).await.is_empty());
}

#[tokio::test]
async fn an_answer_of_entra_for_another_account_tenant_or_client_ends_the_session() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let tenant = &site.site.setup.tenant;
    let scope = format!("api://{}/mcp.access", tenant.server);
    let claims = |user: &str| json!(control().user_claims(tenant.id, tenant.server, user, &scope).unwrap());
    let (good, others) = (tenant.sign(&json!({}), &claims(ALICE)), tenant.sign(&json!({}), &claims(BOB)));
    let of_another_client = tenant.token(ALICE);
    let mut claims_elsewhere = claims(ALICE);
    claims_elsewhere["tid"] = json!(uuid::Uuid::new_v4().to_string());
    let elsewhere = tenant.sign(&json!({}), &claims_elsewhere);
    for (what, token, goes_on) in [
        ("the same account", good, true),
        ("another account", others, false),
        ("another client", of_another_client, false),
        ("another tenant", elsewhere, false),
        ("no token at all", "none".to_owned(), false),
    ] {
        let first = client.sign_in(ALICE).await;
        let answer = json!({ "token_type": "Bearer", "expires_in": 3600, "scope": scope, "access_token": token, "refresh_token": "next" });
        fail_refreshes(&site, 1, status(200, &[("Content-Type", "application/json")], &answer.to_string()));
        let answer = client.refresh(&first.refresh_token).await;
        assert_eq!(answer.status() == 200, goes_on, "{what}: {}", answer.text().await.unwrap());
        if !goes_on {
            has_ended(&client, &first).await;
        }
    }
}
