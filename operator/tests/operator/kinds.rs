//! Tests of third-party kinds that disappear, come back, or are not visible. Nothing is deleted because of it,
//! everything else continues, and no restart is needed after their return.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::{apps::v1::Deployment, authorization::v1::SubjectAccessReview, rbac::v1::ClusterRole},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use mcp_entra_crds::McpServer;
use serde_json::json;
use testbed::{control_plane::Marker, shared::Shared};

use crate::{
    exposure::{api, by_listener, gateway, get, there},
    harness::{Cluster, OPERATOR, Space, mk_server, status_of, until},
};

const GROUP_VERSION: &str = "gateway.networking.k8s.io/v1";
const ROUTES: &str = "httproutes.gateway.networking.k8s.io";

/// Disables the group's API: its objects stay, but cannot be accessed.
async fn out_of_service(space: &Space) {
    let services = Api::<APIService>::all(space.client.clone());
    let nowhere = json!({
        // Otherwise the API server would restore it.
        "metadata": {"labels": {"kube-aggregator.kubernetes.io/automanaged": null}},
        "spec": {"service": {"namespace": space.name, "name": "nowhere", "port": 443}, "insecureSkipTLSVerify": true},
    });
    services.patch(&service(), &PatchParams::default(), &Patch::Merge(nowhere)).await.unwrap();
    until("the group is out of service", async || !is_in_service(space).await).await;
}

async fn back_in_service(space: &Space) {
    let services = Api::<APIService>::all(space.client.clone());
    services.delete(&service(), &DeleteParams::default()).await.unwrap();
    until("the group is in service again", async || is_in_service(space).await).await;
}

fn service() -> String {
    let (group, version) = GROUP_VERSION.split_once('/').unwrap();
    format!("{version}.{group}")
}

/// The state comes from the API server's own status. The client would call the group itself repeatedly.
async fn is_in_service(space: &Space) -> bool {
    let found = Api::<APIService>::all(space.client.clone()).get_opt(&service()).await.unwrap();
    let status = found.and_then(|found| found.status).unwrap_or_default();
    let mut conditions = status.conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Available" && condition.status == "True")
}

/// Makes the API server serve the version of the kind, or stop serving it.
async fn serve(space: &Space, served: bool) {
    let definitions = Api::<CustomResourceDefinition>::all(space.client.clone());
    let versions = definitions.get(ROUTES).await.unwrap().spec.versions;
    let index = versions.iter().position(|version| version.name == "v1").unwrap();
    let patch = json!([{"op": "replace", "path": format!("/spec/versions/{index}/served"), "value": served}]);
    let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
    definitions.patch(ROUTES, &PatchParams::default(), &patch).await.unwrap();
}

/// Asserts that the operator has deleted no route since then.
async fn assert_none_deleted(space: &Space, since: Marker) {
    let writes = space.cluster.plane.audit().writes(since, OPERATOR).await.unwrap();
    let deletions = writes.into_iter().filter(|write| write.verb == "delete" && write.resource == "httproutes");
    assert_eq!(deletions.collect::<Vec<_>>(), []);
}

/// Asserts that a manual edit of the route is corrected: it is watched.
async fn is_watched(space: &Space) {
    let route = there(space, "HTTPRoute", "graph").await.data["spec"].clone();
    let elsewhere = json!([{"op": "replace", "path": "/spec/hostnames/0", "value": "evil.example"}]);
    let patch = Patch::Json::<()>(serde_json::from_value(elsewhere).unwrap());
    api(space, "HTTPRoute").patch("graph", &PatchParams::default(), &patch).await.unwrap();
    until("the route is corrected", async || there(space, "HTTPRoute", "graph").await.data["spec"] == route).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_invisible_for_a_moment_is_neither_pruned_nor_forgotten_and_needs_no_restart() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let cluster = tokio::task::spawn_blocking(|| CLUSTER.get_or_start(Cluster::start).unwrap()).await.unwrap();
    let space = Space::on(cluster).await;
    let operator = cluster.operator().await.unwrap();
    space.apply(gateway("HTTPS")).await;
    space.apply(by_listener()).await;
    space.condition("Programmed", "True", "Applied").await;
    let uid = there(&space, "HTTPRoute", "graph").await.uid();
    let mark = space.mark();

    out_of_service(&space).await;
    until("the operator has met that", async || {
        operator.log.text().contains("cannot discover the kinds that this cluster serves")
    })
    .await;
    space.edit::<McpServer>("graph", json!({"spec": {"replicas": 2}})).await;
    until("the rest of the server follows", async || {
        space.get::<Deployment>("graph").await.unwrap().spec.unwrap().replicas == Some(2)
    })
    .await;
    space.condition("Programmed", "True", "Applied").await;
    back_in_service(&space).await;
    is_watched(&space).await;
    space.condition("Programmed", "True", "Applied").await;
    assert_none_deleted(&space, mark).await;
    assert_eq!(there(&space, "HTTPRoute", "graph").await.uid(), uid);

    serve(&space, false).await;
    let missing = space.condition("Programmed", "False", "KindNotServed").await;
    assert!(missing.message.contains("HTTPRoute of Gateway API"), "{}", missing.message);
    space.condition("Exposed", "False", "KindNotServed").await;
    space.condition("Ready", "False", "KindNotServed").await;
    serve(&space, true).await;
    space.condition("Programmed", "True", "Applied").await;
    is_watched(&space).await;
    assert_none_deleted(&space, mark).await;
    assert_eq!(there(&space, "HTTPRoute", "graph").await.uid(), uid);

    // The objects of a kind are deleted with its definition.
    let definitions = Api::<CustomResourceDefinition>::all(space.client.clone());
    definitions.delete(ROUTES, &DeleteParams::default()).await.unwrap();
    space.condition("Programmed", "False", "KindNotServed").await;
    until("the definition is gone", async || definitions.get_opt(ROUTES).await.unwrap().is_none()).await;
    cluster.install_others().await.unwrap();
    space.condition("Programmed", "True", "Applied").await;
    assert_ne!(there(&space, "HTTPRoute", "graph").await.uid(), uid);
    is_watched(&space).await;
    assert_none_deleted(&space, mark).await;
}

/// Grants the operator these verbs on objects of a kind, and waits for the effect on list.
async fn may(space: &Space, plural: &str, verbs: &[&str]) {
    let roles = Api::<ClusterRole>::all(space.client.clone());
    let mut role = roles.get("mcp-entra-operator").await.unwrap();
    let is_of_it = |resources: &Option<Vec<String>>| resources.iter().flatten().any(|found| found == plural);
    let rule = role.rules.iter_mut().flatten().find(|rule| is_of_it(&rule.resources)).unwrap();
    rule.verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
    let patch = Patch::Merge(json!({"rules": role.rules}));
    roles.patch("mcp-entra-operator", &PatchParams::default(), &patch).await.unwrap();
    let asked = json!({"spec": {"user": OPERATOR, "resourceAttributes": {
        "verb": "list", "group": "gateway.networking.k8s.io", "resource": plural}}});
    let asked: SubjectAccessReview = serde_json::from_value(asked).unwrap();
    until("the rights have changed", async || {
        let answer = Api::all(space.client.clone()).create(&PostParams::default(), &asked).await.unwrap();
        answer.status.unwrap().allowed == verbs.contains(&"list")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_party_kind_without_list_rights_is_reported_and_delays_neither_the_start_nor_other_servers() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let cluster = tokio::task::spawn_blocking(|| CLUSTER.get_or_start(Cluster::start).unwrap()).await.unwrap();
    let space = Space::on(cluster).await;
    // A rule cannot have an empty list of verbs.
    may(&space, "httproutes", &["get"]).await;
    space.apply(gateway("HTTPS")).await;
    space.apply(mk_server()).await;
    let mut routed = by_listener();
    routed["metadata"]["name"] = json!("routed");
    space.apply(routed).await;

    let (operator, start) = (cluster.operator().await.unwrap(), Instant::now());
    until("the operator has started", async || status_of(&operator.url, "/readyz").await == Some(200)).await;
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let told = ["a watch failed", "HTTPRoute", "cannot list resource \"httproutes\""];
    let is_told = |line: &str| told.iter().all(|words| line.contains(words));
    until("the failed watch is reported", async || operator.log.text().lines().any(is_told)).await;
    space.condition("Programmed", "True", "Applied").await;
    let failed = space.condition_of("routed", "Programmed", "False", "ApplyFailed").await;
    assert!(failed.message.contains("HTTPRoute routed: "), "{}", failed.message);
    assert!(failed.message.contains("cannot patch resource \"httproutes\""), "{}", failed.message);
    assert!(space.get::<Deployment>("routed").await.is_some(), "its pods are not held up");

    may(&space, "httproutes", &["get", "list", "watch", "create", "patch", "delete"]).await;
    space.condition_of("routed", "Programmed", "True", "Applied").await;
    api(&space, "HTTPRoute").delete("routed", &DeleteParams::default()).await.unwrap();
    until("the route is back", async || get(&space, "HTTPRoute", "routed").await.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_stays_while_its_gateways_cannot_be_listed() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let cluster = tokio::task::spawn_blocking(|| CLUSTER.get_or_start(Cluster::start).unwrap()).await.unwrap();
    let space = Space::on(cluster).await;
    let first = cluster.operator().await.unwrap();
    space.apply(gateway("HTTPS")).await;
    space.apply(by_listener()).await;
    let uid = there(&space, "HTTPRoute", "graph").await.uid();
    space.condition("Programmed", "True", "Applied").await;
    first.shutdown.cancel();
    first.ended.await.unwrap().unwrap();

    may(&space, "gateways", &["get"]).await;
    let mark = space.mark();
    let _second = cluster.operator().await.unwrap();
    space.edit::<McpServer>("graph", json!({"spec": {"replicas": 2}})).await;
    let missing = space.condition("Programmed", "False", "KindNotServed").await;
    assert!(missing.message.contains("the operator has no permission to see it"), "{}", missing.message);
    until("the rest of the server follows", async || {
        space.get::<Deployment>("graph").await.unwrap().spec.unwrap().replicas == Some(2)
    })
    .await;
    may(&space, "gateways", &["list", "watch"]).await;
    space.condition("Programmed", "True", "Applied").await;
    assert_none_deleted(&space, mark).await;
    assert_eq!(there(&space, "HTTPRoute", "graph").await.uid(), uid);
}
