//! Tests of the state that Flux and Helm, which follow the rules of kstatus, see in the objects.

use std::pin::pin;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Resource, api::WatchEvent};
use mcp_entra_crds::{McpRoleMapping, McpServer};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::harness::{Space, mk_mapping, mk_server, until};

/// Returns the state of an object of a custom kind by the rules of kstatus (sigs.k8s.io/cli-utils). Flux and Helm
/// extend them by the condition `Ready`.
fn kstatus(object: &impl Serialize) -> &'static str {
    let object = serde_json::to_value(object).unwrap();
    let is = |type_: &str, status: &str| {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|found| found["type"] == type_ && found["status"] == status)
    };
    let observed = object.pointer("/status/observedGeneration");
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        "Terminating"
    } else if observed.is_some_and(|observed| *observed != object["metadata"]["generation"])
        || is("Reconciling", "True")
    {
        "InProgress"
    } else if is("Stalled", "True") {
        "Failed"
    } else if is("Ready", "False") || is("Ready", "Unknown") {
        "InProgress"
    } else {
        "Current"
    }
}

/// Watches the objects of a kind from now on, each with its state in kstatus.
async fn states<K>(api: Api<K>) -> impl futures::Stream<Item = (K, &'static str)>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned + 'static,
{
    let version = api.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
    let changes = api.watch(&Default::default(), &version).await.unwrap();
    changes.filter_map(async |change| match change.unwrap() {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            let state = kstatus(&object);
            Some((object, state))
        }
        // Cluster mappings of other tests.
        WatchEvent::Deleted(_) => None,
        other => panic!("{other:?}"),
    })
}

/// Returns a cluster mapping for the servers of one namespace.
fn mk_cluster_mapping(space: &Space, servers: Value) -> Value {
    json!({
        "apiVersion": "mcp-entra.dev/v1alpha1",
        "kind": "ClusterMcpRoleMapping",
        "metadata": {"name": space.name},
        "spec": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name}},
            "servers": servers,
            "deny": [{"name": "no-mail", "tools": ["list_my_messages"]}],
        },
    })
}

async fn state<K>(space: &Space, name: &str) -> &'static str
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    kstatus(&space.get::<K>(name).await.unwrap())
}

async fn cluster_state(space: &Space) -> &'static str {
    kstatus(&space.cluster_mappings().get(&space.name).await.unwrap())
}

#[tokio::test]
async fn no_kind_is_current_before_its_first_reconcile_and_each_is_once_it_is_ready() {
    let space = Space::new().await;
    let servers = states(space.api::<McpServer>()).await;
    let mappings = states(space.api::<McpRoleMapping>()).await;
    let cluster_mappings = states(space.cluster_mappings()).await;
    let (mut servers, mut mappings) = (pin!(servers), pin!(mappings));
    let mut cluster_mappings = pin!(
        cluster_mappings.filter(|(mapping, _)| std::future::ready(mapping.metadata.name.as_ref() == Some(&space.name)))
    );
    let mut server = mk_server();
    server["spec"].as_object_mut().unwrap().remove("exposure");
    space.apply(server).await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.apply_to_cluster(&mk_cluster_mapping(&space, json!({"names": ["graph"]}))).await;

    let (server, state) = servers.next().await.unwrap();
    assert_eq!((state, server.status.unwrap().observed_generation), ("InProgress", Some(-1)));
    let (mapping, state) = mappings.next().await.unwrap();
    assert_eq!((state, mapping.status.unwrap().observed_generation), ("InProgress", Some(-1)));
    let (mapping, state) = cluster_mappings.next().await.unwrap();
    assert_eq!((state, mapping.status.unwrap().observed_generation), ("InProgress", Some(-1)));

    let name = space.bound_pod().await;
    let pod = space.runs(&name).await;
    until("the role may", async || space.policy().await.contains("Mcp.Reader")).await;
    pod.enforces(&space.policy().await);
    let is_ready = |conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]| {
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    macro_rules! each_current_one_is_ready {
        ($states:ident) => {
            while let Some((object, state)) = $states.next().await {
                let status = object.status.unwrap();
                assert_eq!(state == "Current", is_ready(&status.conditions), "{status:#?}");
                if state == "Current" {
                    assert_eq!(status.observed_generation, object.metadata.generation);
                    break;
                }
            }
        };
    }
    let all = async {
        each_current_one_is_ready!(servers);
        each_current_one_is_ready!(mappings);
        each_current_one_is_ready!(cluster_mappings);
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("each kind becomes current");
    space.cluster_mappings().delete(&space.name, &Default::default()).await.unwrap();
}

#[tokio::test]
async fn a_mapping_with_a_missing_server_is_not_current_until_the_server_exists() {
    let space = Space::new().await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.apply_to_cluster(&mk_cluster_mapping(&space, json!({"names": ["graph"]}))).await;
    let missing = space.mapping_condition("readers", "Ready", "False", "ServerNotFound").await;
    assert!(
        missing.message.contains("there is no McpServer with this name in this namespace: graph"),
        "{}",
        missing.message
    );
    assert_eq!(state::<McpRoleMapping>(&space, "readers").await, "InProgress");
    until("the cluster mapping is reconciled", async || {
        let status = space.cluster_mappings().get(&space.name).await.unwrap().status.unwrap();
        status.observed_generation == Some(1)
    })
    .await;
    assert_eq!(cluster_state(&space).await, "InProgress");

    space.apply(mk_server()).await;
    space.mapping_condition("readers", "Ready", "True", "Ready").await;
    assert_eq!(state::<McpRoleMapping>(&space, "readers").await, "Current");
    until("the cluster mapping is current", async || cluster_state(&space).await == "Current").await;
    space.cluster_mappings().delete(&space.name, &Default::default()).await.unwrap();
}

#[tokio::test]
async fn a_mapping_that_selects_no_server_is_current_and_kubectl_waits_for_it() {
    let space = Space::new().await;
    let mut mapping = mk_mapping("readers", "Mcp.Reader");
    mapping["spec"]["servers"] = json!({"selector": {}});
    space.apply(mapping).await;
    space.apply_to_cluster(&mk_cluster_mapping(&space, json!({"selector": {}}))).await;
    for object in ["mcprolemapping/readers", &format!("clustermcprolemapping/{}", space.name)] {
        let waited = space.kubectl(&["wait", object, "--for=condition=Ready", "--timeout=60s"]).await;
        assert!(waited.status.success(), "{waited:?}");
    }
    space.mapping_condition("readers", "Ready", "True", "NoServers").await;
    assert_eq!(state::<McpRoleMapping>(&space, "readers").await, "Current");
    assert_eq!(cluster_state(&space).await, "Current");
    let table = String::from_utf8(space.kubectl(&["get", "mcprolemappings"]).await.stdout).unwrap();
    let columns: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().take(4).collect()).collect();
    assert_eq!(columns, [["NAME", "READY", "REASON", "SERVERS"], ["readers", "True", "NoServers", "0"]], "{table}");
    space.cluster_mappings().delete(&space.name, &Default::default()).await.unwrap();
}
