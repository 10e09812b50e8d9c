//! Tests of role mappings: their status, and the resulting policy.

use k8s_openapi::api::events::v1::Event;
use mcp_entra_crds::{McpRoleMapping, McpServer};
use mcp_entra_policy::{CompiledPolicy, revision};
use serde_json::json;

use crate::harness::{Space, mk_mapping, mk_server, until};

#[tokio::test]
async fn a_mapping_is_accepted_once_its_server_exists_and_programmed_once_the_policy_contains_it() {
    let space = Space::new().await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    let missing = space.mapping_condition("readers", "Accepted", "False", "ServerNotFound").await;
    assert!(missing.message.contains("graph"), "{}", missing.message);

    space.apply(mk_server()).await;
    space.mapping_condition("readers", "Accepted", "True", "Accepted").await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    let policy = space.policy().await;
    let grants = CompiledPolicy::parse(policy.as_bytes()).unwrap().grants;
    assert_eq!((grants.len(), grants[0].mapping.namespace.as_deref()), (1, Some(space.name.as_str())));
    until("the server's status counts it", async || {
        let summary = space.get::<McpServer>("graph").await.unwrap().status.unwrap().policy;
        summary.is_some_and(|summary| {
            let counts = (summary.mappings, summary.roles, summary.tools);
            summary.revision == revision(policy.as_bytes()) && counts == (1, 1, 1)
        })
    })
    .await;
    assert_eq!(space.get::<McpRoleMapping>("readers").await.unwrap().status.unwrap().servers, 1);
}

#[tokio::test]
async fn a_changed_and_a_deleted_mapping_change_the_policy_and_a_foreign_one_does_not() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    let mut other = mk_mapping("other", "Mcp.Other");
    other["spec"]["servers"]["names"] = json!(["another"]);
    space.apply(other).await;
    let neighbour = Space::new().await;
    neighbour.apply(mk_mapping("neighbour", "Mcp.Neighbour")).await;

    until("the role may", async || space.policy().await.contains("Mcp.Reader")).await;
    space.apply(mk_mapping("readers", "Mcp.Writer")).await;
    until("the other role may instead", async || {
        let policy = space.policy().await;
        policy.contains("Mcp.Writer") && !policy.contains("Mcp.Reader")
    })
    .await;
    // A mapping that no longer names the server is a revocation, too.
    space.edit::<McpRoleMapping>("readers", json!({"spec": {"servers": {"names": ["another"]}}})).await;
    until("nobody may", async || space.policy().await == r#"{"grants":[]}"#).await;
    neighbour.mapping_condition("neighbour", "Accepted", "False", "ServerNotFound").await;
}

#[tokio::test]
async fn a_mapping_that_names_one_missing_server_still_grants_on_the_others() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    let mut mapping = mk_mapping("readers", "Mcp.Reader");
    mapping["spec"]["servers"]["names"] = json!(["graph", "grpah"]);
    space.apply(mapping).await;
    let missing = space.mapping_condition("readers", "Accepted", "False", "ServerNotFound").await;
    assert!(missing.message.contains("grpah") && !missing.message.contains("graph,"), "{}", missing.message);
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
}

#[tokio::test]
async fn a_grant_for_another_app_registration_grants_nothing_and_reports_it() {
    let space = Space::new().await;
    let server = mk_server();
    let mut pinned = mk_mapping("pinned", "Mcp.Pinned");
    pinned["spec"]["servers"]["clientId"] = server["spec"]["entra"]["clientId"].clone();
    let mut foreign = mk_mapping("foreign", "Mcp.Foreign");
    foreign["spec"]["servers"]["clientId"] = json!("77aa0000-0000-0000-0000-000000000000");
    for object in [server, pinned, foreign] {
        space.apply(object).await;
    }
    let refused = space.mapping_condition("foreign", "Accepted", "False", "ClientIdMismatch").await;
    assert!(refused.message.contains("graph"), "{}", refused.message);
    space.mapping_condition("pinned", "Programmed", "True", "Applied").await;
    let policy = space.policy().await;
    assert!(policy.contains("Mcp.Pinned") && !policy.contains("Mcp.Foreign"), "{policy}");
    assert_eq!(space.get::<McpRoleMapping>("foreign").await.unwrap().status.unwrap().servers, 0);

    // Another app registration is another server, although the name is the same.
    let client_id = "77aa0000-0000-0000-0000-000000000000";
    space.edit::<McpServer>("graph", json!({"spec": {"entra": {"clientId": client_id}}})).await;
    until("the pin decides anew", async || {
        let policy = space.policy().await;
        policy.contains("Mcp.Foreign") && !policy.contains("Mcp.Pinned")
    })
    .await;
}

#[tokio::test]
async fn a_mapping_with_a_selector_follows_the_labels_of_servers() {
    let space = Space::new().await;
    let mut server = mk_server();
    server["metadata"]["labels"] = json!({"team": "a"});
    space.apply(server).await;
    let mut mapping = mk_mapping("readers", "Mcp.Reader");
    mapping["spec"]["servers"] = json!({"selector": {"matchLabels": {"team": "a"}}});
    space.apply(mapping).await;
    until("the role may", async || space.policy().await.contains("Mcp.Reader")).await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    space.edit::<McpServer>("graph", json!({"metadata": {"labels": {"team": "b"}}})).await;
    until("nobody may", async || space.policy().await == r#"{"grants":[]}"#).await;
    space.mapping_condition("readers", "Programmed", "True", "NoServers").await;
}

#[tokio::test]
async fn misspelt_tools_are_named_and_the_rest_is_granted() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    let mut mapping = mk_mapping("readers", "Mcp.Reader");
    mapping["spec"]["grants"][0]["allow"]["tools"] = json!(["get_user_detials", "list_*"]);
    space.apply(mapping).await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    let status = space.get::<McpRoleMapping>("readers").await.unwrap().status.unwrap();
    assert_eq!((status.unmatched, status.unmatched_names), (1, vec!["get_user_detials".to_owned()]));
    assert_eq!(status.server_names, ["graph"]);
    let accepted = space.mapping_condition("readers", "Accepted", "True", "Accepted").await;
    assert!(
        accepted.message.contains("get_user_detials") && !accepted.message.contains("list_"),
        "{}",
        accepted.message
    );
}

#[tokio::test]
async fn a_mapping_that_becomes_ready_has_exactly_one_event() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    // Returns type and reason of all events about the mapping.
    let told = async || {
        let events = space.api::<Event>().list(&Default::default()).await.unwrap();
        let about = |event: &Event| {
            event.regarding.as_ref().is_some_and(|regarding| regarding.kind.as_deref() == Some("McpRoleMapping"))
        };
        events.items.into_iter().filter(about).map(|event| event.reason.unwrap()).collect::<Vec<_>>()
    };
    until("it has an event", async || told().await == ["Ready"]).await;
    space.quiet().await;
    assert_eq!(told().await, ["Ready"]);
}
