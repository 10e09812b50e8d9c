//! Who of a cluster's people may do what with the kinds, by the roles that come with Kubernetes and by the chart's own.

use kube::Client;
use serde_json::json;

use crate::bed::{Bed, api, apply, installed, mk_mapping, mk_server};

const NAMESPACE: &str = "team";

/// A person with that ClusterRole in the namespace.
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

/// A name that no other test has.
fn name_of_its_own(kind: &str) -> String {
    format!("{}-{}", kind.to_lowercase(), jiff::Timestamp::now().as_nanosecond())
}

/// What of servers, mappings and cluster mappings somebody with that role may list, and may write.
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
async fn who_may_view_a_namespace_sees_servers_and_mappings_and_writes_neither() {
    assert_eq!(may("view").await, ([true, true, false], [false, false, false]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_edit_a_namespace_writes_servers_and_no_mappings() {
    assert_eq!(may("edit").await, ([true, true, false], [true, false, false]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_administrates_a_namespace_writes_servers_and_no_mappings() {
    assert_eq!(may("admin").await, ([true, true, false], [true, false, false]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_write_mappings_writes_those_of_its_namespace_alone() {
    assert_eq!(may("mcprolemapping-edit").await, ([false, true, false], [false, true, false]));
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_mappings_are_written_by_whoever_has_their_own_role_in_the_cluster() {
    // In a namespace it grants nothing: the kind is the cluster's.
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
