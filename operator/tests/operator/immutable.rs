//! Tests of children that became immutable: a ConfigMap continues under another name, and for others the status says
//! what to delete.

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, PodSpec, Service},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{ResourceExt, api::PostParams};
use mcp_entra_crds::{McpRoleMapping, McpServer};
use serde_json::{Value, json};

use crate::harness::{Space, mk_mapping, mk_server, until};

const DENY_ALL: &str = r#"{"grants":[]}"#;

/// Returns the name of the ConfigMap of a volume.
fn mounted(pod: &PodSpec, volume: &str) -> Option<String> {
    let found = pod.volumes.iter().flatten().find(|found| found.name == volume)?;
    found.config_map.as_ref().map(|config_map| config_map.name.clone())
}

async fn freeze(space: &Space, config_map: &str) {
    space.edit::<ConfigMap>(config_map, json!({"immutable": true})).await;
}

async fn policy_in(space: &Space, config_map: &str) -> Option<String> {
    space.get::<ConfigMap>(config_map).await?.data?.remove("policy.json")
}

/// Returns the pods that are not terminating.
async fn staying(space: &Space) -> Vec<Pod> {
    let pods = space.api::<Pod>().list(&Default::default()).await.unwrap();
    pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

/// Waits until every remaining pod mounts this policy, and the policy denies everything.
async fn is_revoked_by(space: &Space, policy: &str) {
    until(&format!("{policy} denies everything"), async || policy_in(space, policy).await.as_deref() == Some(DENY_ALL))
        .await;
    until(&format!("no pod stays that mounts another policy than {policy}"), async || {
        let pods = staying(space).await;
        let is_moved = |pod: &Pod| mounted(pod.spec.as_ref().unwrap(), "policy").as_deref() == Some(policy);
        !pods.is_empty() && pods.iter().all(is_moved)
    })
    .await;
}

/// Waits until Programmed has this status and message.
async fn is_told(space: &Space, text: &str) {
    until(&format!("it is reported: {text}"), async || {
        space.condition("Programmed", "True", "Applied").await.message.contains(text)
    })
    .await;
}

/// A server with a grant, and a ready pod of its Deployment that enforces it.
async fn serving() -> Space {
    let space = Space::new().await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.apply(mk_server()).await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    let pod = space.bound_pod().await;
    space.runs(&pod).await.enforces(&space.policy().await);
    space.condition("AuthorizationReady", "True", "PolicyEnforced").await;
    space
}

async fn frozen_in_state(change: impl AsyncFnOnce(&Space)) -> Space {
    let space = serving().await;
    change(&space).await;
    freeze(&space, "graph-policy").await;
    space.delete::<McpRoleMapping>("readers").await;
    is_revoked_by(&space, "graph-policy-2").await;
    assert!(policy_in(&space, "graph-policy").await.unwrap().contains("Mcp.Reader"), "it was immutable");
    space
}

#[tokio::test]
async fn an_immutable_policy_continues_under_another_name_and_old_pods_are_deleted_before_new_ones_are_ready() {
    let space = frozen_in_state(async |_| {}).await;
    is_told(&space, "ConfigMap graph-policy-2 is mounted").await;
    // Not ready yet, since there is no kubelet.
    assert!(staying(&space).await.iter().all(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Pending")));
    until("later roll-outs wait for new pods again", async || {
        let strategy = space.get::<Deployment>("graph").await.unwrap().spec.unwrap().strategy.unwrap();
        strategy.rolling_update.unwrap().max_unavailable == Some(IntOrString::Int(0))
    })
    .await;
    space.quiet().await;

    // A later grant reaches the new pods, and the next immutable ConfigMap is abandoned, too.
    space.apply(mk_mapping("late", "Mcp.Late")).await;
    until("it is granted", async || policy_in(&space, "graph-policy-2").await.unwrap().contains("Mcp.Late")).await;
    freeze(&space, "graph-policy-2").await;
    space.delete::<McpRoleMapping>("late").await;
    is_revoked_by(&space, "graph-policy-3").await;
}

#[tokio::test]
async fn an_immutable_policy_of_a_suspended_server_continues_under_another_name() {
    frozen_in_state(async |space| {
        space.edit::<McpServer>("graph", json!({"spec": {"suspend": true}})).await;
        space.condition("Programmed", "Unknown", "Suspended").await;
    })
    .await;
}

#[tokio::test]
async fn an_immutable_policy_of_a_refused_server_continues_under_another_name() {
    frozen_in_state(async |space| {
        let host = json!({"spec": {"exposure": {"host": "graph.contoso.net"}}});
        space.edit::<McpServer>("graph", host).await;
        space.condition("Accepted", "False", "HostNotAllowed").await;
    })
    .await;
}

#[tokio::test]
async fn an_immutable_policy_of_a_terminating_server_continues_under_another_name() {
    let space = frozen_in_state(async |space| {
        space.edit::<McpServer>("graph", json!({"metadata": {"finalizers": ["team.example/hold"]}})).await;
        space.delete::<McpServer>("graph").await;
    })
    .await;
    space.edit::<McpServer>("graph", json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test]
async fn a_foreign_name_is_skipped() {
    let space = serving().await;
    space.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "graph-policy-2"}})).await;
    freeze(&space, "graph-policy").await;
    space.delete::<McpRoleMapping>("readers").await;
    is_revoked_by(&space, "graph-policy-3").await;
    assert!(space.get::<ConfigMap>("graph-policy-2").await.unwrap().data.is_none());
}

/// Returns the policy of the server, in the ConfigMap that its pods mount.
async fn in_force(space: &Space) -> Option<String> {
    let pod = space.get::<Deployment>("graph").await?.spec?.template.spec?;
    policy_in(space, &mounted(&pod, "policy")?).await
}

#[tokio::test]
async fn a_policy_with_foreign_content_is_corrected_or_continues_under_another_name() {
    let granting = r#"{"grants":[{"id":"evil"}]}"#;
    let encoded = ByteString(granting.as_bytes().to_vec());
    let filled = "x".repeat(1024 * 1024 - 200);
    for (what, change) in [
        ("binary data in its place", json!({"data": {"policy.json": null}, "binaryData": {"policy.json": encoded}})),
        ("more data than there is room for", json!({"data": {"filled": filled}})),
        (
            "annotations up to their limit",
            json!({"metadata": {"annotations": {
            "filled": "x".repeat(262_000), "mcp-entra.dev/applied-hash": null}}, "data": {"policy.json": granting}}),
        ),
        ("all of it, immutable", json!({"data": {"policy.json": granting}, "immutable": true})),
    ] {
        let space = serving().await;
        space.edit::<ConfigMap>("graph-policy", change).await;
        space.apply(mk_mapping("late", "Mcp.Late")).await;
        space.delete::<McpRoleMapping>("readers").await;
        until(&format!("{what}: the policy in force is what mappings say"), async || {
            let policy = in_force(&space).await.unwrap_or_default();
            policy.contains("Mcp.Late") && !policy.contains("Mcp.Reader") && !policy.contains("evil")
        })
        .await;
        space.condition("Programmed", "True", "Applied").await;
    }
}

#[tokio::test]
async fn a_deleted_policy_is_created_again_although_the_server_is_suspended() {
    let space = serving().await;
    space.edit::<McpServer>("graph", json!({"spec": {"suspend": true}})).await;
    space.condition("Programmed", "Unknown", "Suspended").await;
    space.delete::<ConfigMap>("graph-policy").await;
    space.delete::<McpRoleMapping>("readers").await;
    until("the policy denies everything", async || {
        policy_in(&space, "graph-policy").await.as_deref() == Some(DENY_ALL)
    })
    .await;
}

#[tokio::test]
async fn an_immutable_configuration_continues_under_another_name_and_changes_reach_the_pods() {
    let space = serving().await;
    freeze(&space, "graph-config").await;
    let change = json!({"spec": {"rateLimit": {"perUser": {"requests": 7, "per": "1m"}}}});
    space.edit::<McpServer>("graph", change).await;
    until("the Deployment mounts the next one", async || {
        let pod = space.get::<Deployment>("graph").await.unwrap().spec.unwrap().template.spec.unwrap();
        mounted(&pod, "config").as_deref() == Some("graph-config-2")
    })
    .await;
    let config = space.get::<ConfigMap>("graph-config-2").await.unwrap().data.unwrap();
    assert!(config.values().any(|file| file.contains('7')), "{config:?}");
    is_told(&space, "ConfigMap graph-config-2 is mounted").await;
}

/// Replaces a child with another writer's of the same owner, while the server is suspended.
async fn replace<K>(space: &Space, change: impl FnOnce(&mut Value))
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.edit::<McpServer>("graph", json!({"spec": {"suspend": true}})).await;
    space.condition("Programmed", "Unknown", "Suspended").await;
    let mut made = serde_json::to_value(space.get::<K>("graph").await.unwrap()).unwrap();
    space.delete::<K>("graph").await;
    until("it is gone", async || space.get::<K>("graph").await.is_none()).await;
    for given in ["uid", "resourceVersion", "managedFields"] {
        made["metadata"].as_object_mut().unwrap().remove(given);
    }
    made["spec"].as_object_mut().unwrap().retain(|field, _| !["clusterIP", "clusterIPs"].contains(&field.as_str()));
    change(&mut made);
    space.api::<K>().create(&PostParams::default(), &serde_json::from_value(made).unwrap()).await.unwrap();
    space.edit::<McpServer>("graph", json!({"spec": {"suspend": false}})).await;
}

#[tokio::test]
async fn a_deployment_with_another_selector_is_reported_with_the_deletion_that_fixes_it() {
    let space = Space::new().await;
    replace::<Deployment>(&space, |deployment| {
        let labels = json!({"app.kubernetes.io/name": "mcp-entra-server", "team": "a"});
        deployment["spec"]["selector"] = json!({"matchLabels": labels});
        deployment["spec"]["template"]["metadata"]["labels"] = labels;
    })
    .await;
    let failed = space.condition("Programmed", "False", "ApplyFailed").await;
    let command = format!("kubectl -n {} delete deployment.apps/graph", space.name);
    assert!(failed.message.contains("field is immutable") && failed.message.contains(&command), "{}", failed.message);
    space.delete::<Deployment>("graph").await;
    space.condition("Programmed", "True", "Applied").await;
}

#[tokio::test]
async fn a_service_with_another_address_serves_as_it_is() {
    let space = Space::new().await;
    replace::<Service>(&space, |service| service["spec"]["clusterIP"] = json!("None")).await;
    space.condition("Programmed", "True", "Applied").await;
    let headless = space.get::<Service>("graph").await.unwrap();
    assert_eq!(headless.spec.unwrap().cluster_ip.as_deref(), Some("None"));

    let space = Space::new().await;
    replace::<Service>(&space, |service| {
        service["spec"] = json!({"type": "ExternalName", "externalName": "evil.example"});
    })
    .await;
    space.condition("Programmed", "True", "Applied").await;
    let mended = space.get::<Service>("graph").await.unwrap().spec.unwrap();
    assert_eq!(mended.type_.as_deref(), Some("ClusterIP"));
    assert!(mended.cluster_ip.is_some_and(|address| address != "None"));
}

#[tokio::test]
async fn the_message_about_a_refused_child_requests_no_deletion() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    let more_than_allowed = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}});
    space.edit::<McpServer>("graph", json!({"spec": {"podTemplate": {"resources": more_than_allowed}}})).await;
    let failed = space.condition("Programmed", "False", "ApplyFailed").await;
    assert!(failed.message.contains("Deployment graph") && !failed.message.contains("kubectl"), "{}", failed.message);
    assert!(space.get::<Deployment>("graph").await.unwrap().uid().is_some());
}
