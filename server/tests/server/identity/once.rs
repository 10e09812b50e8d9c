//! Tests of requests that write in Graph: sent at most once, and not cancelled.

use std::sync::Arc;

use entra_emulator::{Fault, FaultKind, Matcher};
use mcp_entra_policy::GraphAccess;
use mcp_entra_server::graph::{Graph, GraphClient, GraphError};
use serde_json::{Value, json};

use super::{application, arrived, signed_in, sts};
use crate::harness::{ON_BEHALF_OF, Setup, eventually};
use crate::tenant::{ALICE, BOB, TestTenant, control, http};

const SEND: &str = "/sendMail";

/// Graph as alice, with the permission to send mail.
async fn graph(tenant: &TestTenant) -> Graph {
    let configuration = tenant.configuration().graph;
    let client = GraphClient::new(http(), &configuration, sts(tenant), application(tenant)).unwrap();
    as_alice(tenant, &client).await
}

async fn as_alice(tenant: &TestTenant, client: &GraphClient) -> Graph {
    let alice = signed_in(tenant, ALICE).await;
    client.for_caller(&alice, GraphAccess::OnBehalfOf, None, &["Mail.Send"]).unwrap()
}

fn mail() -> Value {
    json!({ "message": { "subject": "Hello", "toRecipients": [{ "emailAddress": { "address": BOB } }] } })
}

fn next_answer(tenant: &TestTenant, path: &str, kind: FaultKind) {
    let matcher = Matcher { path: Some(path.to_owned()), tenant: Some(tenant.id), ..Matcher::default() };
    control().inject(Fault { matcher, times: 1, kind }).unwrap();
}

/// The requests to this path of Graph, by the status of their answers.
fn requests(tenant: &TestTenant, path: &str) -> Vec<u16> {
    let requests = tenant.requests().into_iter();
    requests.filter(|request| request.path.ends_with(path)).map(|request| request.status).collect()
}

fn sent(tenant: &TestTenant) -> usize {
    control().sent_messages().iter().filter(|message| message.tenant == tenant.id).count()
}

#[tokio::test]
async fn a_writing_request_is_sent_once_with_any_answer() {
    let status = |status, headers: &[(&str, &str)]| FaultKind::Status {
        status,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: r#"{"error":{"code":"Code","message":"Message."}}"#.to_owned(),
    };
    let challenge = "Bearer error=\"insufficient_claims\", claims=\"eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjU3ODM0NDE3In19fQ\"";
    for (kind, confirmed) in [
        (status(401, &[]), true),
        (status(401, &[("WWW-Authenticate", challenge)]), true),
        (status(408, &[]), false),
        (status(429, &[("Retry-After", "0")]), true),
        (status(503, &[("Retry-After", "0")]), true),
        (status(504, &[("Retry-After", "0")]), false),
        (FaultKind::Disconnect, false),
    ] {
        let tenant = TestTenant::new();
        let graph = graph(&tenant).await;
        // So that the connection was used before.
        graph.get("", &[]).await.unwrap();
        next_answer(&tenant, SEND, kind.clone());
        let error = graph.post_once(SEND, mail()).await.unwrap_err();
        assert_eq!(matches!(error, GraphError::Refused(_)), confirmed, "{kind:?}: {error}");
        assert_eq!(matches!(error, GraphError::Unconfirmed { .. }), !confirmed, "{kind:?}: {error}");
        assert_eq!(error.sign_in(), None, "{kind:?}: the next call has another token");
        assert_eq!((requests(&tenant, SEND).len(), sent(&tenant)), (1, 0), "{kind:?}");

        assert_eq!(graph.post_once(SEND, mail()).await.unwrap(), Value::Null);
        assert_eq!((requests(&tenant, SEND).len(), sent(&tenant)), (2, 1), "{kind:?}");
        let rejected = matches!(kind, FaultKind::Status { status: 401, .. });
        assert_eq!(tenant.grants(ON_BEHALF_OF), if rejected { 2 } else { 1 }, "{kind:?}");
    }
}

#[tokio::test]
async fn a_request_outlives_its_caller_once_it_is_sent_and_a_question_does_not() {
    for (path, expected) in [(SEND, 202), ("/messages", 0)] {
        let tenant = TestTenant::new();
        let graph = Arc::new(graph(&tenant).await);
        graph.get("", &[]).await.unwrap();
        next_answer(&tenant, path, FaultKind::Delay { milliseconds: 3_000 });
        let asking = tokio::spawn({
            let graph = Arc::clone(&graph);
            async move {
                match path {
                    SEND => graph.post_once(path, mail()).await,
                    _ => graph.get(path, &[]).await,
                }
            }
        });
        arrived(&tenant, &graph).await;
        asking.abort();
        let statuses = eventually("the end of the request", async || {
            Some(requests(&tenant, path)).filter(|statuses| !statuses.is_empty())
        });
        assert_eq!(statuses.await, [expected], "{path}");
        assert_eq!(sent(&tenant), usize::from(path == SEND));
    }
}

#[tokio::test]
async fn the_stop_of_the_server_waits_for_a_request_whose_caller_has_gone() {
    let site = Setup::new().start().await;
    let graph = Arc::new(as_alice(&site.setup.tenant, site.running.graph()).await);
    graph.get("", &[]).await.unwrap();
    next_answer(&site.setup.tenant, SEND, FaultKind::Delay { milliseconds: 4_000 });
    let asking = tokio::spawn({
        let graph = Arc::clone(&graph);
        async move { graph.post_once(SEND, mail()).await }
    });
    arrived(&site.setup.tenant, &graph).await;
    asking.abort();
    assert_eq!(requests(&site.setup.tenant, SEND), [0; 0], "it is under way");
    let tenant = site.setup.tenant;
    site.running.shutdown().await;
    assert_eq!((requests(&tenant, SEND), sent(&tenant)), (vec![202], 1));
}
