//! Tests of Microsoft Graph as the calling user, and of the caller's answer to its failures.

use entra_emulator::{Fault, FaultKind, Host, Matcher, Message};
use mcp_entra_policy::GraphAccess;
use mcp_entra_server::entra::{ClaimsChallenge, SignIn};
use mcp_entra_server::graph::{BatchQuestion, Graph, GraphClient, GraphError};
use mcp_entra_server::token::Principal;
use serde_json::{Value, json};

use super::{application, signed_in, sts, validator};
use crate::harness::ON_BEHALF_OF;
use crate::tenant::{ALICE, BOB, TestTenant, control, http};

fn client(tenant: &TestTenant) -> GraphClient {
    GraphClient::new(http(), &tenant.configuration().graph, sts(tenant), application(tenant)).unwrap()
}

async fn graph_of(tenant: &TestTenant, user: &str) -> Graph {
    graph_with(tenant, user, "User.Read").await
}

async fn graph_with(tenant: &TestTenant, user: &str, scope: &str) -> Graph {
    let user = signed_in(tenant, user).await;
    client(tenant).for_caller(&user, GraphAccess::OnBehalfOf, None, &[scope]).unwrap()
}

fn answer_next(tenant: &TestTenant, kind: FaultKind) {
    let matcher = Matcher { host: Some(Host::Graph), tenant: Some(tenant.id), ..Matcher::default() };
    control().inject(Fault { matcher, times: 1, kind }).unwrap();
}

fn next_answer(tenant: &TestTenant, status: u16, headers: &[(&str, &str)], body: &str) {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    answer_next(tenant, FaultKind::Status { status, headers, body: body.to_owned() });
}

/// Returns the number of requests to this tenant's Graph.
fn questions(tenant: &TestTenant) -> usize {
    tenant.requests().iter().filter(|request| request.host == Host::Graph).count()
}

#[tokio::test]
async fn each_user_reads_their_own_profile() {
    let tenant = TestTenant::new();
    for (user, name) in [(ALICE, "Alice Adams"), (BOB, "Bob Brown")] {
        let profile = graph_of(&tenant, user).await.get("", &[("$select", "id,displayName")]).await.unwrap();
        assert_eq!(profile["displayName"], name);
    }
}

#[tokio::test]
async fn an_application_gets_an_error_that_it_has_no_user() {
    let tenant = TestTenant::new();
    let token = tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon));
    let application = validator(&tenant).await.validate(&token).await.unwrap();
    assert!(matches!(*application, Principal::Application(_)));
    let error = client(&tenant).for_caller(&application, GraphAccess::OnBehalfOf, None, &["User.Read"]).err().unwrap();
    assert!(matches!(error, GraphError::NoUser), "{error}");
    assert_eq!(tenant.grants(ON_BEHALF_OF), 0);
}

#[tokio::test]
async fn missing_consent_is_answered_with_which_permission_and_who_must_grant_it_and_stops_no_other() {
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
    graph_of(&tenant, ALICE).await.get("", &[]).await.unwrap();
    let error = graph_with(&tenant, ALICE, "Mail.Read").await.get("/messages", &[]).await.unwrap_err().to_string();
    assert!(!error.contains("User.Read"), "{error}");
    for part in
        ["the permissions Mail.Read.", "AADSTS65001", "administrator", &server.to_string(), "Grant admin consent"]
    {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

#[tokio::test]
async fn a_refusal_of_graph_carries_its_code_and_the_requests_ids() {
    let tenant = TestTenant::new();
    let error = graph_of(&tenant, ALICE).await.get("/nothing", &[]).await.unwrap_err();
    let GraphError::Refused(refusal) = &error else { panic!("{error}") };
    assert!(!refusal.code.is_empty());
    let text = error.to_string();
    for part in [&refusal.code, refusal.request_id.as_ref().unwrap(), &refusal.client_request_id] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[tokio::test]
async fn transient_failures_are_retried_with_each_form_of_retry_after() {
    let busy = r#"{"error":{"code":"TooManyRequests","message":"Slow down."}}"#;
    for (status, retry_after) in
        [(429, "0.128"), (429, "0"), (503, "Tue, 24 Nov 2020 08:00:00 GMT"), (504, "0"), (429, "")]
    {
        let tenant = TestTenant::new();
        let graph = graph_of(&tenant, ALICE).await;
        let headers = [("Retry-After", retry_after)];
        next_answer(&tenant, status, if retry_after.is_empty() { &[] } else { &headers }, busy);
        graph.get("", &[]).await.unwrap();
        assert_eq!(questions(&tenant), 2, "{status} {retry_after:?}");
        assert_eq!(tenant.grants(ON_BEHALF_OF), 1, "the token is still valid");
    }
}

#[tokio::test]
async fn a_throttled_caller_that_cannot_wait_gets_the_time_to_retry() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    let body = r#"{"error":{"code":"TooManyRequests","message":"Slow down."}}"#;
    next_answer(&tenant, 429, &[("Retry-After", "120.5")], body);
    let error = graph.get("", &[]).await.unwrap_err().told();
    assert!(error.contains("429 TooManyRequests.") && error.contains("after 121 seconds"), "{error}");
    assert!(error.ends_with("Microsoft Graph says: Slow down."), "{error}");
    assert_eq!(questions(&tenant), 1);
}

#[tokio::test]
async fn a_graph_that_stays_busy_is_asked_four_times() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    (0..5).for_each(|_| next_answer(&tenant, 503, &[("Retry-After", "0")], ""));
    let error = graph.get("", &[]).await.unwrap_err().to_string();
    assert!(error.contains("HTTP 503"), "{error}");
    assert_eq!(questions(&tenant), 4);
}

#[tokio::test]
async fn permanent_failures_are_not_retried() {
    for status in [400, 403, 404, 500, 501] {
        let tenant = TestTenant::new();
        let graph = graph_of(&tenant, ALICE).await;
        next_answer(&tenant, status, &[("Retry-After", "0")], "");
        graph.get("", &[]).await.unwrap_err();
        assert_eq!(questions(&tenant), 1, "{status}");
    }
}

#[tokio::test]
async fn a_token_that_graph_no_longer_accepts_is_exchanged_for_another_once() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    graph.get("", &[]).await.unwrap();
    let revoked = r#"{"error":{"code":"InvalidAuthenticationToken","message":"Revoked."}}"#;
    next_answer(&tenant, 401, &[], revoked);
    graph.get("", &[]).await.unwrap();
    assert_eq!(tenant.grants(ON_BEHALF_OF), 2);
    next_answer(&tenant, 401, &[], revoked);
    next_answer(&tenant, 401, &[], revoked);
    graph.get("", &[]).await.unwrap_err();
    assert_eq!((tenant.grants(ON_BEHALF_OF), questions(&tenant)), (3, 5));
}

#[tokio::test]
async fn a_claims_challenge_of_graph_is_answered_by_a_token_that_satisfies_it() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    let body = r#"{"error":{"code":"InvalidAuthenticationToken","message":"Challenged."}}"#;
    // {"access_token":{"nbf":{"essential":true,"value":"1657834417"}}}, unquoted and without padding.
    let header = "Bearer error=insufficient_claims, claims=\
                  eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjU3ODM0NDE3In19fQ";
    next_answer(&tenant, 401, &[("WWW-Authenticate", header)], body);
    graph.get("", &[]).await.unwrap();
    assert_eq!((tenant.grants(ON_BEHALF_OF), questions(&tenant)), (2, 2));
    let exchanges = tenant.requests().into_iter().filter(|request| request.grant_type.as_deref() == Some(ON_BEHALF_OF));
    let asked: Vec<Value> =
        exchanges.map(|exchange| serde_json::from_str(&exchange.claims.unwrap()).unwrap()).collect();
    let cp1 = json!({ "values": ["cp1"] });
    let nbf = json!({ "essential": true, "value": "1657834417" });
    assert_eq!(asked[0], json!({ "access_token": { "xms_cc": cp1 } }));
    assert_eq!(asked[1], json!({ "access_token": { "xms_cc": cp1, "nbf": nbf } }));
    // An exchange cannot add a requirement that the user's own sign-in did not meet. Entra reports it, and the client
    // gets it.
    let claims = ClaimsChallenge::authentication_context("c1");
    let header = format!("Bearer error=\"insufficient_claims\", claims=\"{}\"", claims.encode());
    next_answer(&tenant, 401, &[("WWW-Authenticate", &header)], body);
    let error = graph.get("", &[]).await.unwrap_err();
    let Some(SignIn::Satisfying(asked)) = error.sign_in() else { panic!("{error}") };
    assert!(asked.as_json().contains(r#""value":"c1""#), "{asked:?}");
    assert_eq!((tenant.grants(ON_BEHALF_OF), questions(&tenant)), (3, 3));
}

/// Gives alice this many messages.
fn fill_mailbox(tenant: &TestTenant, count: usize) {
    let message = |index| Message {
        subject: format!("Message {index}"),
        from: "sender@contoso.com".into(),
        from_name: "Sender".into(),
        received_date_time: format!("2026-03-01T09:{index:02}:00Z"),
        body_preview: "Hello".into(),
        is_read: true,
    };
    control()
        .change_tenant(tenant.id, |directory| {
            let alice = directory.users.iter_mut().find(|user| user.user_principal_name == ALICE).unwrap();
            alice.messages = (0..count).map(message).collect();
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_list_is_followed_from_page_to_page_up_to_its_limit() {
    let tenant = TestTenant::new();
    fill_mailbox(&tenant, 25);
    let graph = graph_of(&tenant, ALICE).await;
    for (limit, expected, pages) in [(3, 3, 1), (10, 10, 1), (11, 11, 2), (100, 25, 3)] {
        let before = questions(&tenant);
        let messages = graph.list("/messages", &[("$top", "10")], limit).await.unwrap();
        let mut ids: Vec<_> = messages.entries.iter().map(|message| message["id"].to_string()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), questions(&tenant) - before), (expected, pages), "{limit}");
        assert!(!messages.cut_short, "{limit}");
    }
}

#[tokio::test]
async fn a_list_that_goes_on_elsewhere_is_not_followed() {
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    let ours = tenant.configuration().graph.base_url;
    let authority = ours.strip_prefix("https://").unwrap();
    for link in [
        format!("https://localhost:{}/v1.0/me/messages", other.local_addr().unwrap().port()),
        format!("http://{authority}/v1.0/me/messages"),
        format!("https://{authority}@evil.example/v1.0/me/messages"),
        format!("https://{authority}.evil.example/v1.0/me/messages"),
        "/v1.0/me/messages?$skip=1".to_owned(),
        "javascript:alert(1)".to_owned(),
    ] {
        let page = json!({ "value": [{}], "@odata.nextLink": link });
        next_answer(&tenant, 200, &[], &page.to_string());
        let error = graph.list("/messages", &[], 10).await.unwrap_err();
        assert!(matches!(error, GraphError::ForeignLink), "{link}: {error}");
        next_answer(&tenant, 200, &[], &page.to_string());
        let list = graph.list("/messages", &[], 1).await.unwrap();
        assert_eq!((list.entries.len(), list.cut_short), (1, false), "the rest is not needed");
    }
    let connected = tokio::time::timeout(std::time::Duration::ZERO, other.accept()).await;
    assert!(connected.is_err(), "somebody connected");
}

#[tokio::test]
async fn empty_pages_are_followed_but_not_for_ever() {
    let tenant = TestTenant::new();
    fill_mailbox(&tenant, 1);
    let graph = graph_of(&tenant, ALICE).await;
    answer_next(&tenant, FaultKind::EmptyPage);
    let list = graph.list("/messages", &[], 10).await.unwrap();
    assert_eq!((list.entries.len(), list.cut_short), (1, false));
    (0..20).for_each(|_| answer_next(&tenant, FaultKind::EmptyPage));
    let list = graph.list("/messages", &[], 10).await.unwrap();
    assert_eq!((list.entries.len(), list.cut_short), (0, true));
    assert_eq!(questions(&tenant), 22);
}

#[tokio::test]
async fn a_link_to_an_earlier_page_ends_the_list_which_is_marked_as_incomplete() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    let query = [("$top", "10"), ("$orderby", "receivedDateTime desc")];
    let link = |query: &str| format!("{}/v1.0/me/messages?{query}", tenant.configuration().graph.base_url);
    let page = |id: &str, next: &str| json!({ "value": [{ "id": id }], "@odata.nextLink": link(next) }).to_string();
    let to_itself = "$top=10&$orderby=receivedDateTime%20desc";
    for (pages, expected) in [
        (vec![page("a", to_itself)], 1),
        (vec![page("a", "$skiptoken=b"), page("b", "$skiptoken=b")], 2),
        (vec![page("a", "$skiptoken=b"), page("b", "$skiptoken=c"), page("c", "$skiptoken=b")], 3),
        (vec![page("a", "$skiptoken=b"), page("b", "%24skiptoken=b")], 2),
    ] {
        let before = questions(&tenant);
        pages.iter().for_each(|page| next_answer(&tenant, 200, &[], page));
        let list = graph.list("/messages", &query, 10).await.unwrap();
        assert_eq!((list.entries.len(), questions(&tenant) - before, list.cut_short), (expected, expected, true));
    }
    // A page with a next link is followed, even if it resembles an earlier one.
    next_answer(&tenant, 200, &[], &page("a", "$skiptoken=A"));
    next_answer(&tenant, 200, &[], &page("b", "$skiptoken=a"));
    next_answer(&tenant, 200, &[], r#"{"value":[{"id":"c"}]}"#);
    let list = graph.list("/messages", &query, 10).await.unwrap();
    assert_eq!((list.entries.len(), list.cut_short), (3, false));
}

#[tokio::test]
async fn a_tenant_without_exchange_online_is_reported_without_another_token_request() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    let body = json!({ "error": {
        "code": "OrganizationFromTenantGuidNotFound",
        "message": "The tenant for tenant guid 'x' does not exist.",
    }});
    next_answer(&tenant, 401, &[], &body.to_string());
    let error = graph.get("/messages", &[]).await.unwrap_err();
    assert!(error.to_string().contains("this tenant has no Exchange Online"), "{error}");
    assert!(!error.to_string().contains("sign in") && error.sign_in().is_none(), "{error}");
    assert_eq!((tenant.grants(ON_BEHALF_OF), questions(&tenant)), (1, 1));
}

#[tokio::test]
async fn a_batch_is_answered_in_the_order_of_its_requests_each_by_itself() {
    let tenant = TestTenant::new();
    fill_mailbox(&tenant, 3);
    let graph = graph_of(&tenant, ALICE).await;
    let select: &[_] = &[("$select", "id,displayName")];
    let mut questions = vec![BatchQuestion { path: "", query: select }; 45];
    questions[7] = BatchQuestion { path: "/nothing", query: &[] };
    questions[44] = BatchQuestion { path: "/messages", query: &[("$top", "2"), ("$orderby", "receivedDateTime desc")] };
    let mut answers = graph.batch(&questions).await.unwrap();
    assert_eq!(answers.len(), 45);
    assert_eq!(answers.pop().unwrap().unwrap()["value"].as_array().unwrap().len(), 2);
    let refusal = answers.remove(7).unwrap_err();
    assert!(refusal.status.as_u16() >= 400, "{refusal}");
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap()["displayName"] == "Alice Adams"));
    let batches = tenant.requests().iter().filter(|request| request.path == "/v1.0/$batch").count();
    assert_eq!(batches, 3, "twenty at a time");
}

#[tokio::test]
async fn only_throttled_requests_of_a_batch_are_repeated() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    let matcher = Matcher {
        host: Some(Host::Graph),
        tenant: Some(tenant.id),
        path: Some("/v1.0/me/messages".to_owned()),
        ..Matcher::default()
    };
    let busy = |retry_after: &str| FaultKind::Status {
        status: 429,
        headers: [("Retry-After".to_owned(), retry_after.to_owned())].into(),
        body: String::new(),
    };
    control().inject(Fault { matcher: matcher.clone(), times: 2, kind: busy("0") }).unwrap();
    let questions = ["", "/messages", ""].map(|path| BatchQuestion { path, query: &[] });
    let answers = graph.batch(&questions).await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let asked = |path: &str| tenant.requests().iter().filter(|request| request.path == path).count();
    assert_eq!([asked("/v1.0/$batch"), asked("/v1.0/me/messages"), asked("/v1.0/me")], [3, 3, 2]);

    control().inject(Fault { matcher, times: 1, kind: busy("3600") }).unwrap();
    let answers = graph.batch(&questions).await.unwrap();
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let told = answers[1].as_ref().unwrap_err().to_string();
    assert!(told.contains("after 3600 seconds"), "{told}");
}

#[tokio::test]
async fn one_mailbox_is_asked_at_most_four_questions_at_a_time() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    (0..12).for_each(|_| answer_next(&tenant, FaultKind::Delay { milliseconds: 100 }));
    let questions = (0..12).map(|_| graph.get("/messages", &[]));
    futures::future::try_join_all(questions).await.unwrap();
    let graph = tenant.requests().into_iter().filter(|request| request.host == Host::Graph);
    assert_eq!(graph.map(|request| request.concurrent).max(), Some(4));
}

#[tokio::test]
async fn a_body_that_ends_early_is_asked_for_again() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    answer_next(&tenant, FaultKind::Truncate);
    let profile = graph.get("", &[]).await.unwrap();
    assert_eq!((&profile["displayName"], questions(&tenant)), (&json!("Alice Adams"), 2));
}

#[tokio::test]
async fn an_answer_that_is_not_graphs_is_not_taken_for_one() {
    let tenant = TestTenant::new();
    let graph = graph_of(&tenant, ALICE).await;
    next_answer(&tenant, 200, &[], "<html>Sign in to this network</html>");
    let error = graph.get("", &[]).await.unwrap_err();
    assert!(matches!(error, GraphError::NotJson { .. }), "{error}");
    next_answer(&tenant, 200, &[], &format!(r#""{}""#, "x".repeat(4 * 1024 * 1024)));
    let error = graph.get("", &[]).await.unwrap_err();
    assert!(matches!(error, GraphError::Unreachable { .. }) && error.to_string().contains("longer than"), "{error}");
}
