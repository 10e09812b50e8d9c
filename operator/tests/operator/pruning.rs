//! Tests that unneeded children are deleted last, after everything else is applied.

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::ServiceAccount,
        networking::v1::{Ingress, NetworkPolicy},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Resource,
    api::{Patch, PatchParams},
};
use mcp_entra_crds::McpServer;
use serde_json::{Value, json};

use crate::{
    exposure::{gateway, there},
    harness::{Space, mk_server, until},
};

/// Children that [`less`] does not need any more.
async fn unwanted(space: &Space) -> [bool; 4] {
    async fn is_there<K>(space: &Space) -> bool
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        space.get::<K>("graph").await.is_some()
    }
    [
        is_there::<ServiceAccount>(space).await,
        is_there::<NetworkPolicy>(space).await,
        is_there::<PodDisruptionBudget>(space).await,
        is_there::<Ingress>(space).await,
    ]
}

fn more() -> Value {
    let mut server = mk_server();
    let clients = json!({"allowFrom": [{"podSelector": {}}]});
    json_patch::merge(&mut server["spec"], &json!({"replicas": 2, "networkPolicy": clients}));
    server
}

/// Returns a server with other pods, under another account, with fewer safeguards, and another exposure.
fn less() -> Value {
    json!({"spec": {
        "replicas": 1, "networkPolicy": null, "entra": {"federation": {"serviceAccountName": "shared"}},
        "exposure": {"ingress": null, "gateway": {"parentRefs": [{"name": "shared", "sectionName": "web"}]},
                     "tls": {"secretName": null, "terminatedByGateway": true}},
    }})
}

#[tokio::test]
async fn nothing_is_pruned_while_a_child_cannot_be_applied_and_pruning_is_last() {
    let space = Space::new().await;
    space.apply(gateway("HTTPS")).await;
    space.apply(more()).await;
    space.condition("Programmed", "True", "Applied").await;
    assert_eq!(unwanted(&space).await, [true; 4]);
    let shared = json!({"name": "shared", "annotations": {"mcp-entra.dev/allow-server": "graph"}});
    space.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": shared})).await;
    space.refuse("apps", "deployments", "false", "deployments are frozen").await;
    let tried = PatchParams { dry_run: true, ..PatchParams::default() };
    until("Deployments are refused", async || {
        let touched = Patch::Merge(json!({"metadata": {"labels": {"tried": "yes"}}}));
        space.api::<Deployment>().patch("graph", &tried, &touched).await.is_err()
    })
    .await;

    let mark = space.mark();
    space.edit::<McpServer>("graph", less()).await;
    let failed = space.condition("Programmed", "False", "ApplyFailed").await;
    assert!(failed.message.contains("Deployment graph: "), "{}", failed.message);
    assert!(failed.message.contains("deployments are frozen"), "{}", failed.message);
    there(&space, "HTTPRoute", "graph").await;
    until("it has been tried again", async || {
        space.writes(mark).await.iter().filter(|write| write.resource == "deployments" && write.code == 403).count() > 1
    })
    .await;
    assert_eq!(unwanted(&space).await, [true; 4], "the pods that there are may need them");
    assert!(space.writes(mark).await.iter().all(|write| write.verb != "delete"));

    let mark = space.mark();
    space.refuse_no_longer("deployments").await;
    until("the unneeded children are deleted", async || unwanted(&space).await == [false; 4]).await;
    space.condition("Programmed", "True", "Applied").await;
    let is_child = |resource: &str| !matches!(resource, "mcpservers" | "events" | "pods");
    let writes: Vec<_> = space
        .writes(mark)
        .await
        .into_iter()
        .filter(|write| write.code < 300 && is_child(&write.resource))
        .map(|write| (write.verb, write.resource))
        .collect();
    let deletions = writes.iter().skip_while(|(verb, _)| verb == "patch");
    assert!(writes.contains(&("patch".into(), "deployments".into())), "{writes:?}");
    assert_eq!(deletions.clone().filter(|(verb, _)| verb == "delete").count(), 4, "{writes:?}");
    assert!(deletions.clone().all(|(verb, _)| verb == "delete"), "{writes:?}");
}
