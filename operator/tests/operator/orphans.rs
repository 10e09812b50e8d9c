//! Tests of orphans, which a deletion left without their McpServer: their rights are withdrawn, and their routes are
//! deleted.

use std::time::{Duration, Instant};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, Service, ServiceAccount},
        events::v1::Event,
        networking::v1::Ingress,
    },
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, PropagationPolicy},
};
use mcp_entra_crds::McpServer;
use mcp_entra_policy::{POLICY_KEY, revision};
use serde_json::{Value, json};
use testbed::{control_plane::AuditEvent, shared::Shared};

use crate::{
    exposure::{by_own_listener, gateway, get, there},
    harness::{Cluster, OPERATOR, Operator, Space, mk_mapping, mk_server, until},
};

const DENY_ALL: &str = r#"{"grants":[]}"#;
const GRANTED: &str = r#"{"grants":["everything"]}"#;
const REVISION: &str = "mcp-entra.dev/policy-revision";
/// Longest time after the operator sees an orphan.
const SECONDS: Duration = Duration::from_secs(10);

/// Returns a policy with the labels of a child of this server, and without an owner.
fn mk_policy(server: &str, metadata: &Value) -> Value {
    let mut policy = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("{server}-policy"), "labels": labels(server)},
        "data": {POLICY_KEY: GRANTED},
    });
    json_patch::merge(&mut policy["metadata"], metadata);
    policy
}

fn labels(server: &str) -> Value {
    json!({"app.kubernetes.io/managed-by": "mcp-entra-operator", "app.kubernetes.io/name": "mcp-entra-server",
           "app.kubernetes.io/instance": server})
}

fn controlled_by(kind: &str, api_version: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true}])
}

/// Deletes an McpServer and leaves its children, as `kubectl delete --cascade=orphan` does.
async fn orphan(space: &Space, name: &str) {
    let parameters = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    space.api::<McpServer>().delete(name, &parameters).await.unwrap();
    until("the McpServer is gone", async || space.get::<McpServer>(name).await.is_none()).await;
}

async fn data_of(space: &Space, config_map: &str) -> Option<String> {
    space.get::<ConfigMap>(config_map).await?.data?.remove(POLICY_KEY)
}

/// Waits until a policy denies everything, and returns the elapsed time.
async fn denied(space: &Space, config_map: &str) -> Duration {
    let began = Instant::now();
    until(&format!("{config_map} denies everything"), async || {
        data_of(space, config_map).await.as_deref() == Some(DENY_ALL)
    })
    .await;
    began.elapsed()
}

async fn nudged(space: &Space, pod: &str) -> bool {
    let pod = space.get::<Pod>(pod).await.unwrap();
    pod.annotations().get(REVISION).is_some_and(|value| value.starts_with(&revision(DENY_ALL.as_bytes())))
}

async fn event(space: &Space, reason: &str, about: &str) -> Event {
    let mut found = None;
    until(&format!("an event {reason} of {about}"), async || {
        let events = space.api::<Event>().list(&Default::default()).await.unwrap();
        let is_it = |event: &Event| {
            event.reason.as_deref() == Some(reason)
                && event.regarding.as_ref().is_some_and(|regarding| regarding.name.as_deref() == Some(about))
        };
        found = events.into_iter().find(is_it);
        found.is_some()
    })
    .await;
    found.unwrap()
}

async fn uid_and_spec<K>(space: &Space, name: &str) -> (Option<String>, Value)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
{
    let object = space.get::<K>(name).await.unwrap();
    (object.uid(), serde_json::to_value(&object).unwrap()["spec"].clone())
}

/// Returns the parts of an orphan that must stay unchanged.
async fn kept(space: &Space) -> [(Option<String>, Value); 4] {
    [
        uid_and_spec::<Deployment>(space, "graph").await,
        uid_and_spec::<Service>(space, "graph").await,
        uid_and_spec::<ServiceAccount>(space, "graph").await,
        uid_and_spec::<ConfigMap>(space, "graph-config").await,
    ]
}

/// Returns the plurals of written objects, except the status of mappings, which lose their server.
fn written(writes: &[AuditEvent]) -> Vec<&str> {
    let mut written: Vec<&str> = writes.iter().map(|write| &*write.resource).collect();
    written.retain(|resource| *resource != "mcprolemappings");
    written.sort_unstable();
    written.dedup();
    written
}

/// Creates a server with a grant, a ready pod that enforces it, and a pod that is not ready.
async fn serving(space: &Space) -> [crate::kubelet::FakePod; 2] {
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.apply(mk_server()).await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    let pods = [space.pod("ready").await, space.pod("unready").await];
    let unready = json!({"conditions": [{"type": "Ready", "status": "False"}]});
    space.kubelet_says("unready", unready).await;
    for pod in &pods {
        pod.enforces(&space.policy().await);
    }
    space.condition("AuthorizationReady", "True", "PolicyEnforced").await;
    assert!(space.policy().await.contains("Mcp.Reader"));
    pods
}

#[tokio::test]
async fn an_orphan_allows_nothing_and_each_pod_is_nudged_ready_or_not_until_it_enforces_that() {
    let space = Space::new().await;
    let pods = serving(&space).await;
    let before = kept(&space).await;
    let mark = space.mark();
    orphan(&space, "graph").await;
    let took = denied(&space, "graph-policy").await;
    assert!(took < SECONDS, "{took:?}");
    until("both pods are nudged", async || nudged(&space, "ready").await && nudged(&space, "unready").await).await;
    let told = event(&space, "Orphaned", "graph-policy").await.note.unwrap();
    assert!(told.contains("apply McpServer graph again") && told.contains("mcp-entra.dev/adopt=graph"), "{told}");
    assert!(told.contains("delete Deployment graph"), "{told}");

    for pod in &pods {
        pod.enforces(DENY_ALL);
    }
    space.quiet().await;
    assert!(space.get::<Ingress>("graph").await.is_none(), "nothing leads to it");
    assert_eq!(kept(&space).await, before);
    let writes = space.writes(mark).await;
    let expected = ["configmaps", "events", "ingresses", "mcpservers", "pods"];
    assert!(written(&writes).iter().all(|resource| expected.contains(resource)), "{writes:#?}");
    let mark = space.mark();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(space.writes(mark).await, [], "a pod that enforces the policy is unchanged");
}

/// A cluster for the only test that stops its operator.
async fn own_cluster() -> &'static Cluster {
    static CLUSTER: Shared<Cluster> = Shared::new();
    tokio::task::spawn_blocking(|| CLUSTER.get_or_start(Cluster::start).unwrap()).await.unwrap()
}

async fn orphaned_pods(operator: &Operator) -> Option<String> {
    let metrics = reqwest::get(format!("{}/metrics", operator.url)).await.ok()?.text().await.ok()?;
    let mut lines = metrics.lines().filter_map(|line| line.strip_prefix("mcp_entra_operator_orphaned_pods "));
    lines.next().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_orphaned_while_the_operator_was_down_are_revoked_when_it_leads_again_and_their_pods_are_counted() {
    let space = Space::on(own_cluster().await).await;
    let first = space.cluster.operator().await.unwrap();
    let [ready, unready] = serving(&space).await;
    space.apply(gateway("HTTP")).await;
    let mut routed = by_own_listener();
    routed["metadata"]["name"] = json!("routed");
    space.apply(routed).await;
    for kind in ["HTTPRoute", "ListenerSet"] {
        there(&space, kind, "routed").await;
    }
    there(&space, "Certificate", "routed-tls").await;
    assert_eq!(orphaned_pods(&first).await.as_deref(), Some("0"));
    first.shutdown.cancel();
    first.ended.await.unwrap().unwrap();
    for name in ["graph", "routed"] {
        orphan(&space, name).await;
    }
    let before = kept(&space).await;
    assert!(space.policy().await.contains("Mcp.Reader"));
    assert!(get(&space, "HTTPRoute", "routed").await.is_some() && space.get::<Ingress>("graph").await.is_some());

    let mark = space.mark();
    let second = space.cluster.operator().await.unwrap();
    for policy in ["graph-policy", "routed-policy"] {
        denied(&space, policy).await;
    }
    until("nothing leads to them", async || {
        get(&space, "HTTPRoute", "routed").await.is_none()
            && get(&space, "ListenerSet", "routed").await.is_none()
            && space.get::<Ingress>("graph").await.is_none()
    })
    .await;
    event(&space, "OrphanDeleted", "routed").await;
    assert!(get(&space, "Certificate", "routed-tls").await.is_some(), "it routes no clients");
    until("both pods are nudged", async || nudged(&space, "ready").await && nudged(&space, "unready").await).await;
    until("both are counted", async || orphaned_pods(&second).await.as_deref() == Some("2")).await;
    ready.enforces(DENY_ALL);
    until("one is counted", async || orphaned_pods(&second).await.as_deref() == Some("1")).await;
    unready.enforces(DENY_ALL);
    until("none is counted", async || orphaned_pods(&second).await.as_deref() == Some("0")).await;

    space.quiet().await;
    assert_eq!(kept(&space).await, before);
    let expected = ["configmaps", "events", "httproutes", "ingresses", "listenersets", "pods"];
    assert_eq!(written(&space.writes(mark).await), expected);
    let log = second.log.text();
    assert!(log.contains("the McpServer of ConfigMap graph-policy no longer exists"), "{log}");
    second.shutdown.cancel();
    second.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn objects_similar_to_an_orphan_are_unchanged() {
    let space = Space::new().await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.apply(mk_server()).await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    let owned = space.policy().await;
    let holder = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "holder"}});
    space.apply(holder).await;
    let holder = space.get::<ConfigMap>("holder").await.unwrap().uid().unwrap();
    let neighbours = [
        ("bare-policy", mk_policy("bare", &json!({"labels": null}))),
        ("helm-policy", mk_policy("helm", &json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}))),
        ("other-policy", mk_policy("other", &json!({"labels": labels("another")}))),
        ("copy", mk_policy("gone", &json!({"name": "copy"}))),
        (
            "held-policy",
            mk_policy("held", &json!({"ownerReferences": controlled_by("ConfigMap", "v1", "holder", &holder)})),
        ),
    ];
    for (_, neighbour) in &neighbours {
        space.apply(neighbour.clone()).await;
    }
    let mut route = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "hand-made", "labels": labels("gone")},
        "spec": {"defaultBackend": {"service": {"name": "gone", "port": {"number": 80}}}}});
    space.apply(route.clone()).await;
    let template = space.get::<Deployment>("graph").await.unwrap().spec.unwrap().template.metadata.unwrap();
    let borrowed = json!({"labels": labels("gone"), "annotations": template.annotations});
    space.pod_like("borrows-labels", &borrowed).await.enforces(GRANTED);
    space.pod_like("left", &json!({"labels": labels("gone")})).await.enforces(GRANTED);

    space.apply(mk_policy("gone", &json!({}))).await;
    route["metadata"]["name"] = json!("gone");
    space.apply(route).await;
    denied(&space, "gone-policy").await;
    until("the route is deleted", async || space.get::<Ingress>("gone").await.is_none()).await;
    until("the pod that is left is nudged", async || nudged(&space, "left").await).await;
    for (name, _) in &neighbours {
        assert_eq!(data_of(&space, name).await.as_deref(), Some(GRANTED), "{name}");
    }
    assert!(space.get::<Ingress>("hand-made").await.is_some());
    assert!(!nudged(&space, "borrows-labels").await);
    assert_eq!(space.policy().await, owned);
}

#[tokio::test]
async fn a_policy_without_its_owner_reference_allows_nothing_and_again_after_an_edit() {
    let space = Space::new().await;
    let [ready, _] = serving(&space).await;
    let granted = space.policy().await;
    space.edit::<ConfigMap>("graph-policy", json!({"metadata": {"ownerReferences": null}})).await;
    denied(&space, "graph-policy").await;
    space.condition("Conflicted", "True", "NotOwned").await;
    until("the pod is nudged", async || nudged(&space, "ready").await).await;
    ready.enforces(DENY_ALL);

    // Also as binary data, which a mounted file shows the same way.
    let binary = k8s_openapi::ByteString(granted.clone().into_bytes());
    for edit in [
        json!({"data": {POLICY_KEY: granted, "other.json": GRANTED}}),
        json!({"data": null, "binaryData": {POLICY_KEY: binary}}),
    ] {
        space.edit::<ConfigMap>("graph-policy", edit).await;
        let took = denied(&space, "graph-policy").await;
        assert!(took < SECONDS, "{took:?}");
        let left = space.get::<ConfigMap>("graph-policy").await.unwrap();
        assert_eq!((left.data.unwrap().len(), left.binary_data), (1, None), "nothing else stays");
    }
}

#[tokio::test]
async fn a_route_without_its_owner_reference_is_deleted_and_created_again() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    let taken = space.get::<Ingress>("graph").await.unwrap().uid();
    space.edit::<Ingress>("graph", json!({"metadata": {"ownerReferences": null}})).await;
    until("there is another", async || {
        let ingress = space.get::<Ingress>("graph").await;
        ingress.is_some_and(|ingress| ingress.uid() != taken && !ingress.owner_references().is_empty())
    })
    .await;
    space.condition("Programmed", "True", "Applied").await;
}

#[tokio::test]
async fn a_policy_of_a_vanished_mcpserver_denies_everything_after_a_while_and_a_check_at_the_api_server() {
    let space = Space::new().await;
    let began = Instant::now();
    let vanished = controlled_by("McpServer", "mcp-entra.dev/v1alpha1", "lost", "00000000-0000-0000-0000-000000000001");
    let mark = space.mark();
    // The finalizer makes the garbage collector wait.
    space.apply(mk_policy("lost", &json!({"ownerReferences": vanished, "finalizers": ["team.example/hold"]}))).await;
    denied(&space, "lost-policy").await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(30), "{took:?}");
    let requests = space.cluster.plane.audit().requests(mark, OPERATOR).await.unwrap();
    let here: Vec<_> = requests.iter().filter(|request| request.namespace.as_ref() == Some(&space.name)).collect();
    let place = |verb: &str, resource: &str| {
        here.iter().position(|request| request.verb == verb && request.resource == resource)
    };
    assert!(place("list", "mcpservers").unwrap() < place("patch", "configmaps").unwrap(), "{here:#?}");
    space.edit::<ConfigMap>("lost-policy", json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test]
async fn an_immutable_policy_of_an_orphan_is_reported_with_the_object_to_delete() {
    let space = Space::new().await;
    let mut frozen = mk_policy("frozen", &json!({}));
    frozen["immutable"] = json!(true);
    space.pod_like("left", &json!({"labels": labels("frozen")})).await.enforces(GRANTED);
    space.apply(frozen).await;
    let told = event(&space, "OrphanKeepsRights", "frozen-policy").await.note.unwrap();
    assert!(told.contains("it is immutable") && told.contains("delete Deployment frozen"), "{told}");
    space.quiet().await;
    let mark = space.mark();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(space.writes(mark).await, [], "no nudge would help, and nothing is tried that is refused");
    assert_eq!(data_of(&space, "frozen-policy").await.as_deref(), Some(GRANTED));
}
