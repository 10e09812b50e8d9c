//! Tests of `onlyOperatorWrites`.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, EvictParams, ListParams};
use serde_json::{Value, json};

use super::cluster::{Guarded, IMAGE, OPERATOR, TEAM, until};
use super::images::mk_pod;
use super::requests::{assert_refused, create, delete, delete_all, objects, patch, patch_part};

/// Version and kind of every child.
const KINDS: [(&str, &str); 12] = [
    ("v1", "ConfigMap"),
    ("v1", "ServiceAccount"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("networking.k8s.io/v1", "Ingress"),
    ("policy/v1", "PodDisruptionBudget"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("gateway.networking.k8s.io/v1", "ListenerSet"),
    ("cert-manager.io/v1", "Certificate"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
];

/// Version, kind and name of one child of each kind.
pub(super) async fn children(guarded: &Guarded) -> Vec<(&'static str, &'static str, String)> {
    let mut found = Vec::new();
    let owned = ListParams::default().labels("app.kubernetes.io/managed-by=mcp-entra-operator");
    for (version, kind) in KINDS {
        let there = objects(&guarded.admin(), TEAM, version, kind).list(&owned).await.unwrap();
        found.extend(there.items.first().map(|child| (version, kind, child.name_any())));
    }
    found
}

async fn a_pod(guarded: &Guarded) -> String {
    let pods = Api::<Pod>::namespaced(guarded.admin(), TEAM);
    let of_a_server = ListParams::default().labels("app.kubernetes.io/instance=routed");
    let mut name = None;
    until("there is a pod", async || {
        name = pods.list(&of_a_server).await.unwrap().items.first().map(ResourceExt::name_any);
        name.is_some()
    })
    .await;
    name.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_writes_each_kind_of_child() {
    let guarded = Guarded::get().await;
    let (person, platform) = (guarded.person(), guarded.as_user("dora", &["platform"]));
    let restorer = guarded.as_user("restorer", &[]);
    let annotate = json!({"metadata": {"annotations": {"team.example/note": "mine"}}});
    let unlabel = json!({"metadata": {"labels": null, "ownerReferences": null}});
    for (version, kind, name) in children(guarded).await {
        let theirs = objects(&person, TEAM, version, kind);
        for change in [&annotate, &unlabel] {
            assert_refused(patch(&theirs, &name, change).await, "only-operator-writes", "change the McpServer instead");
        }
        assert_refused(delete(&theirs, &name).await, "only-operator-writes", "change the McpServer instead");
        assert_refused(delete_all(&theirs).await, "only-operator-writes", "change the McpServer instead");
        for exempt in [&platform, &restorer] {
            let theirs = objects(exempt, TEAM, version, kind);
            patch(&theirs, &name, &annotate).await.unwrap();
            delete(&theirs, &name).await.unwrap();
        }
    }
}

fn mk_config_map(metadata: Value) -> Value {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}});
    map["metadata"]["generateName"] = json!("own-");
    map
}

fn mk_owner(kind: &str, version: &str, controller: bool) -> Value {
    json!({"ownerReferences": [{"apiVersion": version, "kind": kind, "name": "routed", "uid": "u", "controller": controller}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn others_cannot_create_fake_children_by_label_or_owner_and_can_create_similar_objects() {
    let client = Guarded::get().await.person();
    for metadata in [
        json!({"labels": {"app.kubernetes.io/managed-by": "mcp-entra-operator"}}),
        json!({"labels": {"app.kubernetes.io/name": "mcp-entra-server"}}),
        mk_owner("McpServer", "mcp-entra.dev/v1alpha1", true),
    ] {
        let answer = create(&client, TEAM, &mk_config_map(metadata), true).await;
        assert_refused(answer, "only-operator-writes", "configmaps of an McpServer (by label or owner)");
    }
    for metadata in [
        json!({}),
        json!({"labels": {"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/instance": "routed"}}),
        json!({"labels": {"app.kubernetes.io/name": "mcp-entra-server-docs"}}),
        mk_owner("McpServer", "mcp-entra.dev/v1alpha1", false),
        mk_owner("McpServer", "mcp-entra.devious/v1", true),
        mk_owner("Deployment", "apps/v1", true),
    ] {
        create(&client, TEAM, &mk_config_map(metadata), true).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_label_cannot_be_added_later() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    let person = guarded.person();
    create(&person, &namespace, &mk_pod(IMAGE), false).await.unwrap();
    let pods = objects(&person, &namespace, "v1", "Pod");
    for label in ["app.kubernetes.io/instance", "app"] {
        patch(&pods, "probe", &json!({"metadata": {"labels": {label: "routed"}}})).await.unwrap();
    }
    let change = json!({"metadata": {"labels": {"app.kubernetes.io/name": "mcp-entra-server"}}});
    assert_refused(patch(&pods, "probe", &change).await, "only-operator-writes", "pods of an McpServer");
}

/// Returns a workload of each kind that creates pods, with this label on its pods.
fn mk_workloads(labels: &Value) -> Vec<Value> {
    let template = |restarts: &str| {
        let mut spec = mk_pod(IMAGE)["spec"].clone();
        spec["restartPolicy"] = json!(restarts);
        json!({"metadata": {"labels": labels}, "spec": spec})
    };
    let selecting = json!({"selector": {"matchLabels": labels}, "template": template("Always")});
    let job = json!({"template": template("Never")});
    let workload = |version: &str, kind: &str, spec: Value| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "own"}, "spec": spec});
    let mut pod = template("Always");
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["generateName"] = json!("own-");
    vec![
        pod,
        workload("v1", "ReplicationController", json!({"selector": labels, "template": template("Always")})),
        workload("apps/v1", "Deployment", selecting.clone()),
        workload("apps/v1", "ReplicaSet", selecting.clone()),
        workload("apps/v1", "StatefulSet", selecting.clone()),
        workload("apps/v1", "DaemonSet", selecting),
        workload("batch/v1", "Job", job.clone()),
        workload("batch/v1", "CronJob", json!({"schedule": "0 * * * *", "jobTemplate": {"spec": job}})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn others_cannot_create_pods_that_a_servers_service_selects() {
    let client = Guarded::get().await.person();
    let selected = json!({"app.kubernetes.io/name": "mcp-entra-server", "app.kubernetes.io/instance": "routed"});
    for workload in mk_workloads(&selected) {
        assert_refused(
            create(&client, TEAM, &workload, true).await,
            "only-operator-writes",
            "of an McpServer (by label or owner)",
        );
    }
    for workload in mk_workloads(&json!({"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "routed"})) {
        create(&client, TEAM, &workload, true).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_pods_may_be_deleted_and_scaled_but_not_changed() {
    let guarded = Guarded::get().await;
    let person = guarded.person();
    let (pod, pods) = (a_pod(guarded).await, objects(&person, TEAM, "v1", "Pod"));
    delete(&pods, &pod).await.unwrap();
    let parameters = EvictParams {
        post_options: kube::api::PostParams { dry_run: true, ..Default::default() },
        ..Default::default()
    };
    Api::<Pod>::namespaced(person.clone(), TEAM).evict(&pod, &parameters).await.unwrap();
    let deployments = objects(&person, TEAM, "apps/v1", "Deployment");
    patch_part(&deployments, "routed", "scale", &json!({"spec": {"replicas": 3}})).await.unwrap();

    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": IMAGE}]}});
    let mut resized = json!({"spec": {"containers": pods.get(&pod).await.unwrap().data["spec"]["containers"]}});
    resized["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1m");
    let unlabelled = json!({"metadata": {"labels": null}});
    for answer in [
        patch_part(&pods, &pod, "ephemeralcontainers", &debug).await,
        patch_part(&pods, &pod, "resize", &resized).await,
        patch(&pods, &pod, &unlabelled).await,
        patch(&deployments, "routed", &json!({"spec": {"replicas": 3}})).await,
    ] {
        assert_refused(answer, "only-operator-writes", "of an McpServer (by label or owner)");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_writes_the_status_of_servers_and_mappings() {
    let guarded = Guarded::get().await;
    let ready = json!({"status": {"replicas": 7}});
    let servers = |client| objects(&client, TEAM, "mcp-entra.dev/v1alpha1", "McpServer");
    let answer = patch_part(&servers(guarded.person()), "routed", "status", &ready).await;
    assert_refused(answer, "only-operator-writes", "mcpservers of an McpServer");
    patch_part(&servers(guarded.as_user(OPERATOR, &[])), "routed", "status", &ready).await.unwrap();
    let labelled: Result<DynamicObject, String> =
        patch(&servers(guarded.person()), "routed", &json!({"metadata": {"labels": {"team": "a"}}})).await;
    labelled.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_controllers_of_kubernetes_are_exempt_and_not_accounts_with_similar_names() {
    let guarded = Guarded::get().await;
    let accounts = |name: &str| {
        let groups: &[&str] = match name.split(':').nth(2) {
            Some("kube-system") => &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
            _ => &[],
        };
        objects(&guarded.as_user(name, groups), TEAM, "v1", "ServiceAccount")
    };
    for name in [
        "system:kube-controller-manager",
        "system:serviceaccount:kube-system:deployment-controller",
        "system:serviceaccount:kube-system:generic-garbage-collector",
        "system:serviceaccount:kube-system:namespace-controller",
    ] {
        delete(&accounts(name), "routed").await.unwrap();
    }
    for name in [
        "system:serviceaccount:kube-system:keda-operator",
        "system:serviceaccount:kube-system:other-deployment-controller",
        "system:serviceaccount:kube-system:deployment-controller-2",
        "system:serviceaccount:kube-systems:generic-garbage-collector",
        "system:serviceaccount:productivity:mcp-entra-operator",
    ] {
        assert_refused(delete(&accounts(name), "routed").await, "only-operator-writes", name);
    }
}
