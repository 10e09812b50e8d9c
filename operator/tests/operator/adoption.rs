//! Tests of orphaned children after a deletion: one command gives them to the McpServer that is applied again, and no
//! pod is restarted.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{Api, ResourceExt, api::DeleteParams};
use mcp_entra_crds::McpServer;
use serde_json::json;

use crate::harness::{Space, mk_mapping, mk_server, until};

/// Runs the command at the end of a message. Returns the objects that it names.
async fn run_command(space: &Space, message: &str) -> Vec<String> {
    let (_, command) = message.split_once("run: kubectl ").expect(message);
    let arguments: Vec<&str> = command.split(' ').collect();
    // It continues if an object is deleted meanwhile, such as a route to an orphan.
    let output = space.kubectl(&arguments).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || said.contains("NotFound"), "{said}");
    arguments
        .iter()
        .filter(|argument| argument.contains('/') && !argument.contains('='))
        .map(|name| (*name).to_owned())
        .collect()
}

async fn replica_sets(space: &Space) -> Vec<String> {
    let mut names: Vec<String> =
        space.api::<ReplicaSet>().list(&Default::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    names.sort();
    names
}

#[tokio::test]
async fn one_command_gives_orphans_to_the_server_that_is_applied_again_and_no_pod_is_restarted() {
    let space = Space::new().await;
    let server = mk_server();
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.apply(server.clone()).await;
    space.condition("Programmed", "True", "Applied").await;
    until("there are pods", async || replica_sets(&space).await.len() == 1).await;
    let pod = space.pod("one").await;
    pod.enforces(&space.policy().await);
    space.condition("AuthorizationReady", "True", "PolicyEnforced").await;
    let (before, sets) = (space.get::<Deployment>("graph").await.unwrap(), replica_sets(&space).await);

    let servers: Api<McpServer> = space.api();
    servers.delete("graph", &DeleteParams::orphan()).await.unwrap();
    until("the server is gone", async || space.get::<McpServer>("graph").await.is_none()).await;
    assert!(space.get::<Deployment>("graph").await.unwrap().owner_references().is_empty());

    space.apply(server).await;
    let conflicted = space.condition("Conflicted", "True", "NotOwned").await;
    let named = run_command(&space, &conflicted.message).await;
    for resource in ["configmap/graph-policy", "configmap/graph-config", "deployment.apps/graph", "service/graph"] {
        assert!(named.iter().any(|name| name == resource), "{resource}: {named:?}");
    }
    space.condition("Programmed", "True", "Applied").await;

    let owner = space.get::<McpServer>("graph").await.unwrap();
    let after = space.get::<Deployment>("graph").await.unwrap();
    assert_eq!(after.owner_references()[0].uid, owner.uid().unwrap());
    let template = |deployment: &Deployment| deployment.spec.as_ref().unwrap().template.clone();
    assert_eq!(template(&after), template(&before), "the pods are as they were");
    assert_eq!(replica_sets(&space).await, sets);
    until("the policy is what mappings say", async || space.policy().await.contains("Mcp.Reader")).await;

    // Pods of the adopted uid belong to the server.
    pod.enforces("another");
    space.condition("AuthorizationReady", "False", "PolicyLagging").await;
    pod.enforces(&space.policy().await);
    space.condition("AuthorizationReady", "True", "PolicyEnforced").await;
}

#[tokio::test]
async fn orphans_that_are_given_to_another_server_are_not_taken() {
    let space = Space::new().await;
    let server = mk_server();
    space.apply(server.clone()).await;
    space.condition("Programmed", "True", "Applied").await;
    let servers: Api<McpServer> = space.api();
    servers.delete("graph", &DeleteParams::orphan()).await.unwrap();
    until("the server is gone", async || space.get::<McpServer>("graph").await.is_none()).await;
    let given = json!({"metadata": {"annotations": {"mcp-entra.dev/adopt": "graph-2"}}});
    space.edit::<Deployment>("graph", given).await;
    space.apply(server).await;
    let conflicted = space.condition("Conflicted", "True", "NotOwned").await;
    assert!(conflicted.message.contains("deployment.apps/graph"), "{}", conflicted.message);
    assert!(space.get::<Deployment>("graph").await.unwrap().owner_references().is_empty());
}
