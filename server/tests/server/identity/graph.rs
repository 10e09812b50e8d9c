//! Microsoft Graph as the calling user, and what a caller is told when it does not work.

use entra_emulator::{Fault, FaultKind, Host, Matcher};
use mcp_entra_server::graph::{Graph, GraphClient, GraphError};
use mcp_entra_server::token::Principal;
use serde_json::json;

use super::{signed_in, sts, validator};
use crate::tenant::{ALICE, BOB, TestTenant, control, http};

const ON_BEHALF_OF: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn client(tenant: &TestTenant) -> GraphClient {
    let graph = tenant.configuration().graph;
    GraphClient::new(http(), &graph.base_url, sts(tenant), &graph.scopes)
}

async fn graph_of(tenant: &TestTenant, user: &str) -> Graph {
    client(tenant).on_behalf_of(signed_in(tenant, user).await)
}

fn next_answer(tenant: &TestTenant, status: u16, headers: &[(&str, &str)], body: &str) {
    let matcher = Matcher { host: Some(Host::Graph), tenant: Some(tenant.id), ..Matcher::default() };
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let kind = FaultKind::Status { status, headers, body: body.to_owned() };
    control().inject(Fault { matcher, times: 1, kind }).unwrap();
}

#[tokio::test]
async fn each_user_reads_their_own_profile() {
    let tenant = TestTenant::new();
    let client = client(&tenant);
    for (user, name) in [(ALICE, "Alice Adams"), (BOB, "Bob Brown")] {
        let graph = client.on_behalf_of(signed_in(&tenant, user).await);
        let profile = graph.get("/v1.0/me", &[("$select", "id,displayName")]).await.unwrap();
        assert_eq!(profile["displayName"], name);
    }
}

#[tokio::test]
async fn an_application_is_told_that_it_has_no_user() {
    let tenant = TestTenant::new();
    let token = tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon));
    let application = validator(&tenant).await.validate(&token).await.unwrap();
    assert!(matches!(*application, Principal::Application(_)));
    let error = client(&tenant).on_behalf_of(application).get("/v1.0/me", &[]).await.unwrap_err();
    assert!(matches!(error, GraphError::NoUser), "{error}");
    assert_eq!(tenant.grants(ON_BEHALF_OF), 0);
}

#[tokio::test]
async fn missing_consent_is_answered_with_which_permissions_and_who_must_grant_them() {
    let tenant = TestTenant::new();
    let server = tenant.server;
    control()
        .change_tenant(tenant.id, |directory| {
            for app in directory.apps.iter_mut().filter(|app| app.client_id == server) {
                app.granted_graph_scopes = vec!["User.Read".to_owned()];
            }
            Ok(())
        })
        .unwrap();
    let error = graph_of(&tenant, ALICE).await.get("/v1.0/me", &[]).await.unwrap_err().to_string();
    let authority = tenant.configuration().entra.authority;
    let consent_link = format!("{authority}/{}/adminconsent?client_id={server}", tenant.id);
    for part in ["User.Read, Mail.Read", "AADSTS65001", "administrator", "grant consent", &consent_link] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

#[tokio::test]
async fn a_refusal_of_graph_carries_its_code_and_the_requests_id() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    let error = graph.get("/v1.0/users/11111111-1111-4111-8111-111111111111", &[]).await.unwrap_err();
    let GraphError::Refused(refusal) = &error else { panic!("{error}") };
    assert!(!refusal.code.is_empty());
    let text = error.to_string();
    assert!(text.contains(&refusal.code) && text.contains(refusal.request_id.as_deref().unwrap()), "{text}");
}

#[tokio::test]
async fn a_throttled_caller_is_told_when_to_come_back() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    let body = r#"{"error":{"code":"TooManyRequests","message":"Slow down."}}"#;
    next_answer(&tenant, 429, &[("Retry-After", "2.128")], body);
    let error = graph.get("/v1.0/me", &[]).await.unwrap_err().to_string();
    assert!(error.contains("429 TooManyRequests: Slow down.") && error.contains("after 2.128 seconds"), "{error}");
    graph.get("/v1.0/me", &[]).await.unwrap();
    assert_eq!(tenant.grants(ON_BEHALF_OF), 1, "the token is as good as before");
}

#[tokio::test]
async fn a_token_that_graph_no_longer_accepts_is_exchanged_for_another_once() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    graph.get("/v1.0/me", &[]).await.unwrap();
    let revoked = r#"{"error":{"code":"InvalidAuthenticationToken","message":"Revoked."}}"#;
    next_answer(&tenant, 401, &[], revoked);
    graph.get("/v1.0/me", &[]).await.unwrap();
    assert_eq!(tenant.grants(ON_BEHALF_OF), 2);
    next_answer(&tenant, 401, &[], revoked);
    next_answer(&tenant, 401, &[], revoked);
    graph.get("/v1.0/me", &[]).await.unwrap_err();
    assert_eq!(tenant.grants(ON_BEHALF_OF), 3);
}

#[tokio::test]
async fn an_answer_that_is_not_graphs_is_not_taken_for_one() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    next_answer(&tenant, 200, &[], "<html>Sign in to this network</html>");
    let error = graph.get("/v1.0/me", &[]).await.unwrap_err();
    assert!(matches!(error, GraphError::NotJson { .. }), "{error}");
    next_answer(&tenant, 200, &[], &format!(r#""{}""#, "x".repeat(4 * 1024 * 1024)));
    let error = graph.get("/v1.0/me", &[]).await.unwrap_err();
    assert!(matches!(error, GraphError::Unreachable(_)) && error.to_string().contains("longer than"), "{error}");
}
