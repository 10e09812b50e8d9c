//! Tests of objects of other owners: never changed, and reported.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, ServiceAccount},
    events::v1::Event,
    networking::v1::Ingress,
};
use kube::ResourceExt;
use mcp_entra_crds::McpServer;
use serde_json::json;

use crate::harness::{Space, find, mk_mapping, mk_server, until};

#[tokio::test]
async fn a_foreign_config_map_stops_everything_until_it_is_deleted() {
    let space = Space::new().await;
    space
        .apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "graph-policy"}, "data": {"mine": "yes"}}))
        .await;
    let theirs = space.get::<ConfigMap>("graph-policy").await.unwrap();
    space.apply(mk_server()).await;

    let conflicted = space.condition("Conflicted", "True", "NotOwned").await;
    assert!(conflicted.message.contains("ConfigMap graph-policy"), "{}", conflicted.message);
    space.condition("Programmed", "False", "NotOwned").await;
    space.condition("Ready", "False", "NotOwned").await;
    assert!(space.get::<Deployment>("graph").await.is_none());
    assert!(space.get::<ServiceAccount>("graph").await.is_none());
    assert_eq!(space.get::<ConfigMap>("graph-policy").await.unwrap().resource_version(), theirs.resource_version());
    until("a Warning is published", async || {
        let events = space.api::<Event>().list(&Default::default()).await.unwrap();
        events.iter().any(|event| {
            event.type_.as_deref() == Some("Warning")
                && event.reason.as_deref() == Some("NotOwned")
                && event.note.as_ref().is_some_and(|note| note.contains("graph-policy"))
        })
    })
    .await;

    space.delete::<ConfigMap>("graph-policy").await;
    space.condition("Programmed", "True", "Applied").await;
    let status = space.get::<McpServer>("graph").await.unwrap().status.unwrap();
    assert!(find(&status.conditions, "Conflicted").is_none());
    assert!(space.get::<Deployment>("graph").await.is_some());
}

#[tokio::test]
async fn a_foreign_service_account_is_not_adopted_either() {
    let space = Space::new().await;
    space.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "graph"}})).await;
    space.apply(mk_server()).await;
    let conflicted = space.condition("Conflicted", "True", "NotOwned").await;
    assert!(conflicted.message.contains("ServiceAccount graph"), "{}", conflicted.message);
    assert!(space.get::<ServiceAccount>("graph").await.unwrap().owner_references().is_empty());
    assert!(space.get::<Deployment>("graph").await.is_none());
    // It has no watched label, and its deletion is noticed nevertheless.
    space.delete::<ServiceAccount>("graph").await;
    space.condition("Programmed", "True", "Applied").await;
}

#[tokio::test]
async fn every_foreign_name_is_reported_at_once_and_not_tried_again() {
    let space = Space::new().await;
    let names = json!({"name": "graph", "labels": {"app": "other"}});
    let ports = json!([{"port": 80}]);
    let budget = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "other"}}});
    for object in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": names, "spec": {"ports": ports}}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": names, "spec": budget}),
    ] {
        space.apply(object).await;
    }
    space.apply(mk_server()).await;
    let conflicted = space.condition("Conflicted", "True", "NotOwned").await;
    for name in ["Service graph", "PodDisruptionBudget graph"] {
        assert!(conflicted.message.contains(name), "{}", conflicted.message);
    }
    assert!(space.get::<Deployment>("graph").await.is_none(), "no unreachable pod runs");
    space.quiet().await;
    let mark = space.mark();
    space.edit::<McpServer>("graph", json!({"metadata": {"labels": {"looked": "at"}}})).await;
    space.quiet().await;
    assert_eq!(space.writes(mark).await, []);
}

#[tokio::test]
async fn a_mapping_is_not_programmed_while_its_servers_policy_is_foreign() {
    let space = Space::new().await;
    space.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "graph-policy"}})).await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.apply(mk_server()).await;
    space.mapping_condition("readers", "Accepted", "True", "Accepted").await;
    let pending = space.mapping_condition("readers", "Programmed", "False", "Pending").await;
    assert!(pending.message.contains("condition Programmed of the bound servers"), "{}", pending.message);

    space.delete::<ConfigMap>("graph-policy").await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    // Another owner takes the name later: the operator no longer controls the object.
    space.edit::<ConfigMap>("graph-policy", json!({"metadata": {"ownerReferences": null}})).await;
    space.condition("Conflicted", "True", "NotOwned").await;
    space.mapping_condition("readers", "Programmed", "False", "Pending").await;
}

#[tokio::test]
async fn the_children_of_a_deleted_namesake_are_awaited_and_no_conflict() {
    let space = Space::new().await;
    // The finalizer makes the garbage collector wait.
    let left = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "graph-config", "finalizers": ["team.example/hold"], "ownerReferences": [{
            "apiVersion": "mcp-entra.dev/v1alpha1", "kind": "McpServer", "name": "graph", "controller": true,
            "uid": "00000000-0000-0000-0000-000000000001",
        }]},
    });
    space.apply(left).await;
    space.apply(mk_server()).await;
    let waiting = space.condition("Programmed", "False", "Progressing").await;
    assert!(waiting.message.contains("still exist"), "{}", waiting.message);
    let conditions = space.get::<McpServer>("graph").await.unwrap().status.unwrap().conditions;
    assert!(find(&conditions, "Conflicted").is_none());

    space.edit::<ConfigMap>("graph-config", json!({"metadata": {"finalizers": null}})).await;
    space.condition("Programmed", "True", "Applied").await;
    let events = space.api::<Event>().list(&Default::default()).await.unwrap();
    let ours = |event: &&Event| event.reporting_controller.as_deref() == Some("mcp-entra-operator");
    let warnings: Vec<_> =
        events.iter().filter(ours).filter(|event| event.reason.as_deref() == Some("NotOwned")).collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
}

#[tokio::test]
async fn an_object_without_an_owner_is_adopted_by_the_server_in_its_annotation() {
    let space = Space::new().await;
    let theirs = |given_to: &str| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
               "metadata": {"name": "graph", "annotations": {"mcp-entra.dev/adopt": given_to, "team.example/kept": "yes"}}})
    };
    space.apply(theirs("grap")).await;
    space.apply(mk_server()).await;
    let conflicted = space.condition("Conflicted", "True", "NotOwned").await;
    assert!(
        conflicted.message.contains("annotate serviceaccount/graph mcp-entra.dev/adopt=graph"),
        "{}",
        conflicted.message
    );

    space.apply(theirs("graph")).await;
    space.condition("Programmed", "True", "Applied").await;
    let adopted = space.get::<ServiceAccount>("graph").await.unwrap();
    assert_eq!(adopted.owner_references()[0].uid, space.get::<McpServer>("graph").await.unwrap().metadata.uid.unwrap());
    assert_eq!(adopted.annotations()["team.example/kept"], "yes");
}

#[tokio::test]
async fn a_mapping_reports_a_foreign_policy_although_its_server_does_not_change() {
    let space = Space::new().await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.apply(mk_server()).await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    space.edit::<McpServer>("graph", json!({"spec": {"suspend": true}})).await;
    space.condition("Programmed", "Unknown", "Suspended").await;
    space.quiet().await;

    space.edit::<ConfigMap>("graph-policy", json!({"metadata": {"ownerReferences": null}})).await;
    space.mapping_condition("readers", "Programmed", "False", "Pending").await;
}

#[tokio::test]
async fn no_child_is_created_that_refers_to_a_possibly_foreign_name() {
    let service = &["create", "service", "clusterip", "probe", "--tcp=80", "--dry-run=server"][..];
    for (plural, probe) in
        [("services", service), ("serviceaccounts", &["create", "serviceaccount", "probe", "--dry-run=server"])]
    {
        let space = Space::new().await;
        // An answer that does not show whether the name is in use.
        space.refuse("", plural, "false", "nothing is made today").await;
        until("it is refused", async || !space.kubectl(probe).await.status.success()).await;
        space.apply(mk_server()).await;
        let refused = space.condition("Programmed", "False", "ApplyFailed").await;
        assert!(refused.message.contains("nothing is made today"), "{}", refused.message);
        assert!(space.get::<Deployment>("graph").await.is_none(), "{plural}");
        assert!(space.get::<Ingress>("graph").await.is_none(), "{plural}: it could route clients to foreign pods");
    }
}

#[tokio::test]
async fn a_running_server_is_unchanged_if_a_change_needs_a_foreign_name() {
    let space = Space::new().await;
    let mut server = mk_server();
    server["spec"]["replicas"] = json!(1);
    space.apply(server.clone()).await;
    space.condition("Programmed", "True", "Applied").await;
    let before = space.get::<Deployment>("graph").await.unwrap().metadata.generation;
    let budget = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "other"}}});
    space
        .apply(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "graph"}, "spec": budget}))
        .await;
    let edit = json!({"spec": {"replicas": 2}});
    space.edit::<McpServer>("graph", edit).await;
    let conflicted = space.condition("Conflicted", "True", "NotOwned").await;
    assert!(conflicted.message.contains("PodDisruptionBudget graph"), "{}", conflicted.message);
    assert_eq!(space.get::<Deployment>("graph").await.unwrap().metadata.generation, before);
}
