//! Rights of people on the kinds, by the roles of Kubernetes and of the chart.

use kube::Client;
use serde_json::json;

use crate::bed::{Bed, api, apply, installed, mk_mapping, mk_server};

const NAMESPACE: &str = "team";

/// Returns a client with this ClusterRole in the namespace.
async fn person(bed: &Bed, role: &str) -> Client {
    bed.namespace(NAMESPACE).await;
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
        "metadata": {"name": role, "namespace": NAMESPACE},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": format!("has-{role}")}],
    });
    bed.apply(&binding).await.unwrap();
    let mut config = bed.plane.config();
    config.auth_info.impersonate = Some(format!("has-{role}"));
    Client::try_from(config).unwrap()
}

async fn may_list(client: &Client, kind: &str) -> bool {
    api(client, kind, NAMESPACE).list(&Default::default()).await.is_ok()
}

async fn may_write(client: &Client, kind: &str) -> bool {
    let mut object = match kind {
        "McpServer" => mk_server(NAMESPACE),
        _ => mk_mapping(kind, NAMESPACE),
    };
    object["metadata"]["name"] = json!(name_of_its_own(kind));
    match apply(client, &object).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 403 => false,
        Err(error) => panic!("{error}"),
    }
}

/// Returns a name that no other test has.
fn name_of_its_own(kind: &str) -> String {
    format!("{}-{}", kind.to_lowercase(), jiff::Timestamp::now().as_nanosecond())
}

/// Returns the rights of a user with the role to list, and to write, servers, mappings and cluster mappings.
async fn may(role: &str) -> ([bool; 3], [bool; 3]) {
    let person = person(installed().await, role).await;
    let mut may = ([false; 3], [false; 3]);
    for (index, kind) in ["McpServer", "McpRoleMapping", "ClusterMcpRoleMapping"].into_iter().enumerate() {
        may.0[index] = may_list(&person, kind).await;
        may.1[index] = may_write(&person, kind).await;
    }
    may
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_of_a_namespace_reads_servers_and_mappings_and_writes_neither() {
    assert_eq!(may("view").await, ([true, true, false], [false, false, false]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_of_a_namespace_writes_servers_and_no_mappings() {
    assert_eq!(may("edit").await, ([true, true, false], [true, false, false]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_a_namespace_writes_servers_and_no_mappings() {
    assert_eq!(may("admin").await, ([true, true, false], [true, false, false]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_of_mappings_writes_only_those_of_its_namespace() {
    assert_eq!(may("mcprolemapping-edit").await, ([false, true, false], [false, true, false]));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_their_own_cluster_role_writes_cluster_mappings() {
    // It grants nothing in a namespace: the kind is cluster-scoped.
    assert_eq!(may("clustermcprolemapping-edit").await, ([false; 3], [false; 3]));
    let bed = installed().await;
    let group = "rbac.authorization.k8s.io";
    bed.apply(&json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "platform"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "clustermcprolemapping-edit"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "platform"}],
    }))
    .await
    .unwrap();
    let mut config = bed.plane.config();
    config.auth_info.impersonate = Some("platform".to_owned());
    let platform = Client::try_from(config).unwrap();
    assert!(may_write(&platform, "ClusterMcpRoleMapping").await);
    assert!(!may_write(&platform, "McpServer").await);
}
