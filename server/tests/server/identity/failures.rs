//! Tests of calls during failures of Entra or Graph: each failure has its result, within a limited time.

use std::time::Duration;

use entra_emulator::{Fault, FaultKind, Host, Matcher};
use mcp_entra_policy::GraphAccess;
use mcp_entra_server::entra::{FederatedToken, OnBehalfOf, Remedy, SignIn, Sts, StsError};
use mcp_entra_server::graph::{Graph, GraphClient};
use mcp_entra_server::token::Principal;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::{application, signed_in, sts};
use crate::harness::ON_BEHALF_OF;
use crate::tenant::{ALICE, AUDIENCE, SUBJECT, TestTenant, control, http, issuer};

/// Time limit of a request to this server.
const LIMIT: Duration = Duration::from_secs(60);

async fn graph_through(tenant: &TestTenant, change: impl FnOnce(&mut mcp_entra_policy::ServerConfiguration)) -> Graph {
    let mut configuration = tenant.configuration();
    change(&mut configuration);
    let token = FederatedToken::at(tenant.token_file());
    let sts = std::sync::Arc::new(Sts::new(http(), &configuration.entra, token).unwrap());
    let alice = signed_in(tenant, ALICE).await;
    let client = GraphClient::new(http(), &configuration.graph, sts, application(tenant)).unwrap();
    client.for_caller(&alice, GraphAccess::OnBehalfOf, None, &["User.Read"]).unwrap()
}

async fn graph(tenant: &TestTenant) -> Graph {
    graph_through(tenant, |_| {}).await
}

fn inject(tenant: &TestTenant, host: Host, times: u32, kind: FaultKind) {
    let grant_type = matches!(host, Host::Authority).then(|| ON_BEHALF_OF.to_owned());
    let matcher = Matcher { host: Some(host), tenant: Some(tenant.id), grant_type, ..Matcher::default() };
    control().inject(Fault { matcher, times, kind }).unwrap();
}

fn answer(status: u16, retry_after: &str, body: &str) -> FaultKind {
    let headers = [("Retry-After".to_owned(), retry_after.to_owned())].into();
    FaultKind::Status { status, headers, body: body.to_owned() }
}

/// An address on which nothing listens.
async fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("https://localhost:{}", listener.local_addr().unwrap().port())
}

/// Returns the answer to the caller, within the time limit of a request.
async fn told(graph: &Graph) -> String {
    timeout(LIMIT, graph.get("", &[])).await.expect("in time").unwrap_err().to_string()
}

#[tokio::test]
async fn an_entra_that_answers_too_slowly_is_asked_again() {
    let tenant = TestTenant::new();
    let graph = graph(&tenant).await;
    inject(&tenant, Host::Authority, 1, FaultKind::Delay { milliseconds: 10_000 });
    timeout(LIMIT, graph.get("", &[])).await.expect("in time").unwrap();
}

#[tokio::test]
async fn an_entra_that_says_nothing_is_given_up() {
    let tenant = TestTenant::new();
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", mute.local_addr().unwrap().port());
    let graph = graph_through(&tenant, |configuration| configuration.entra.authority = url.clone()).await;
    let told = told(&graph).await;
    assert!(
        told.contains(&format!("token endpoint {url}/{}", tenant.id)) && told.contains("check the network"),
        "{told}"
    );
}

#[tokio::test]
async fn an_entra_that_is_down_is_given_up() {
    let tenant = TestTenant::new();
    let url = closed().await;
    let graph = graph_through(&tenant, |configuration| configuration.entra.authority = url).await;
    let told = told(&graph).await;
    assert!(told.contains("does not answer") && told.contains("refused"), "{told}");
}

#[tokio::test]
async fn garbage_from_entra_is_never_accepted_as_a_token_nor_cached() {
    let tenant = TestTenant::new();
    let graph = graph(&tenant).await;
    for body in ["", "<html>", "{", "[]", r#"{"access_token":7,"expires_in":1}"#, r#"{"access_token":"x"}"#, "\u{0}"] {
        inject(&tenant, Host::Authority, 1, answer(200, "", body));
        let told = told(&graph).await;
        assert!(told.contains("the answer is not from Entra"), "{body:?}: {told}");
    }
    assert_eq!(tenant.requests().iter().filter(|request| request.host == Host::Graph).count(), 0);
    graph.get("", &[]).await.unwrap();
}

#[tokio::test]
async fn the_server_waits_for_a_throttling_entra_or_returns_the_time_to_retry() {
    let tenant = TestTenant::new();
    let graph = graph(&tenant).await;
    inject(&tenant, Host::Authority, 2, answer(429, "0.2", ""));
    graph.get("", &[]).await.unwrap();
    let graph = self::graph(&tenant).await;
    inject(&tenant, Host::Authority, 1, answer(429, "60", r#"{"error":"temporarily_unavailable"}"#));
    let told = told(&graph).await;
    assert!(told.contains("Call again after 60 seconds"), "{told}");
}

#[tokio::test]
async fn a_signing_key_withdrawn_during_a_call_requires_another_sign_in() {
    let tenant = TestTenant::new();
    let graph = graph(&tenant).await;
    control().roll_signing_key(tenant.id).unwrap();
    graph.get("", &[]).await.expect("the old key is still published");

    let graph = self::graph(&tenant).await;
    control().roll_signing_key(tenant.id).unwrap();
    control().withdraw_old_signing_keys(tenant.id).unwrap();
    let error = graph.get("", &[]).await.unwrap_err();
    assert!(error.to_string().contains("AADSTS50013"), "{error}");
    assert_eq!(error.sign_in(), Some(SignIn::Anew));
    let again = self::graph(&tenant).await;
    again.get("", &[]).await.unwrap();
}

#[tokio::test]
async fn a_cluster_key_that_is_not_published_yet_is_reported_and_works_later() {
    let tenant = TestTenant::new();
    let graph = graph(&tenant).await;
    let good = std::fs::read_to_string(tenant.token_file()).unwrap();
    let (header, rest) = good.split_once('.').unwrap();
    let unpublished = {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let mut header: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        header["kid"] = json!("the-next-key");
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
    };
    std::fs::write(tenant.token_file(), unpublished).unwrap();
    let told = told(&graph).await;
    assert!(told.contains("AADSTS7000272") && told.contains("publish it"), "{told}");
    std::fs::write(tenant.token_file(), good).unwrap();
    graph.get("", &[]).await.unwrap();
}

#[tokio::test]
async fn different_clocks_are_reported_or_compensated() {
    // Graph's clock is ahead: the token has expired for it, and a new one has not.
    let tenant = TestTenant::new();
    let graph = graph(&tenant).await;
    graph.get("", &[]).await.unwrap();
    let expired = r#"{"error":{"code":"InvalidAuthenticationToken","message":"Lifetime validation failed, the token is expired."}}"#;
    inject(&tenant, Host::Graph, 1, answer(401, "", expired));
    graph.get("", &[]).await.unwrap();

    // Entra's clock is ahead of ours: the user's token has expired for it, and the client gets a new one.
    let graph = self::graph(&tenant).await;
    let message = "Assertion is not within its valid time range.".to_owned();
    let error = "invalid_grant".to_owned();
    let kind = FaultKind::Aadsts { code: 500_133, status: 400, error, message, suberror: None, claims: None };
    inject(&tenant, Host::Authority, 1, kind);
    assert_eq!(graph.get("", &[]).await.unwrap_err().sign_in(), Some(SignIn::Anew));

    // The projected token has expired, so a user's sign-in does not help.
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({
        "iss": issuer().url, "sub": SUBJECT, "aud": [AUDIENCE], "iat": now - 7200, "nbf": now - 7200, "exp": now - 3600,
    });
    std::fs::write(tenant.token_file(), issuer().sign(&claims).unwrap()).unwrap();
    let graph = self::graph(&tenant).await;
    let error = graph.get("", &[]).await.unwrap_err();
    assert!(error.to_string().contains("AADSTS700024") && error.to_string().contains("clock"), "{error}");
    assert_eq!(error.sign_in(), None);
    tenant.project(SUBJECT, AUDIENCE);
    graph.get("", &[]).await.unwrap();
}

#[tokio::test]
async fn a_graph_that_cuts_connections_is_asked_again() {
    let tenant = TestTenant::new();
    let graph = graph(&tenant).await;
    inject(&tenant, Host::Graph, 1, FaultKind::Disconnect);
    timeout(LIMIT, graph.get("", &[])).await.expect("in time").unwrap();
}

#[tokio::test]
async fn a_missing_token_file_is_reported_as_a_failure_of_the_credential() {
    let tenant = TestTenant::new();
    let alice = signed_in(&tenant, ALICE).await;
    let Principal::User(user) = &*alice else { panic!("{alice:?}") };
    std::fs::remove_file(tenant.token_file()).unwrap();
    let error = sts(&tenant).on_behalf_of(&OnBehalfOf::new(user, "https://graph.example", ["s"])).await.unwrap_err();
    assert!(matches!(error, StsError::FederatedToken(_)), "{error}");
    assert_eq!(error.remedy(), Remedy::Credential);
    assert!(tenant.requests().is_empty() || tenant.grants(ON_BEHALF_OF) == 0);
}
