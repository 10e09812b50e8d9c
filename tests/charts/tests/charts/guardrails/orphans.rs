//! Tests of children without an owner after a deletion. The operator withdraws their rights; people decide about their
//! new owner.

use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::cluster::{Guarded, OPERATOR, TEAM, mk_server};
use super::requests::{assert_refused, create, delete, objects, patch};

const DENY_ALL: &str = r#"{"grants":[]}"#;

/// Returns an object with the labels of a child, and without an owner.
fn mk_orphan(version: &str, kind: &str, name: &str, rest: &Value) -> Value {
    let labels = json!({
        "app.kubernetes.io/managed-by": "mcp-entra-operator",
        "app.kubernetes.io/name": "mcp-entra-server",
        "app.kubernetes.io/instance": "graph",
    });
    let mut orphan = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}});
    orphan.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    orphan
}

/// Adds a finalizer that is never removed, so that the object stays although the operator or the garbage collector
/// deletes it. Finalizers of a terminating object can be removed, but not added.
fn held(mut object: Value) -> Value {
    object["metadata"]["finalizers"] = json!(["example.com/held"]);
    object
}

/// Namespace with orphans of the server graph, and similar objects.
async fn orphaned(guarded: &Guarded) -> String {
    let namespace = guarded.namespace().await;
    let restorer = guarded.as_user("restorer", &[]);
    let data = json!({"data": {"policy.json": r#"{"grants":[1]}"#}});
    let mut unlabelled = mk_orphan("v1", "ConfigMap", "other-policy", &data);
    unlabelled["metadata"]["labels"] = json!({"app.kubernetes.io/instance": "other"});
    let mut owned = mk_orphan("v1", "ConfigMap", "owned-policy", &data);
    owned["metadata"]["labels"]["app.kubernetes.io/instance"] = json!("owned");
    owned["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u", "controller": true}]);
    let ports = json!({"spec": {"ports": [{"port": 80}], "selector": {"app.kubernetes.io/name": "mcp-entra-server"}}});
    let backend = json!({"service": {"name": "graph", "port": {"number": 80}}});
    for object in [
        mk_orphan("v1", "ConfigMap", "graph-policy", &data),
        mk_orphan("v1", "ConfigMap", "graph-policy-2", &data),
        mk_orphan("v1", "ConfigMap", "graph-policy-backup", &data),
        mk_orphan("v1", "ConfigMap", "graph-policy-2x", &data),
        mk_orphan("v1", "ConfigMap", "graph-config", &data),
        unlabelled,
        owned,
        mk_orphan("v1", "Service", "graph", &ports),
        mk_orphan("v1", "ServiceAccount", "graph", &json!({})),
        mk_orphan("networking.k8s.io/v1", "Ingress", "graph", &json!({"spec": {"defaultBackend": backend}})),
        mk_orphan("gateway.networking.k8s.io/v1", "HTTPRoute", "graph", &json!({"spec": {}})),
    ] {
        create(&restorer, &namespace, &held(object), false).await.unwrap();
    }
    namespace
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_only_withdraws_all_rights_of_an_orphaned_policy() {
    let guarded = Guarded::get().await;
    let namespace = orphaned(guarded).await;
    let maps = objects(&guarded.as_user(OPERATOR, &[]), &namespace, "v1", "ConfigMap");
    let deny = json!({"data": {"policy.json": DENY_ALL}});
    for name in ["graph-policy", "graph-policy-2"] {
        patch(&maps, name, &deny).await.unwrap();
    }
    for name in ["graph-policy-backup", "graph-policy-2x", "graph-config", "other-policy", "owned-policy"] {
        assert_refused(patch(&maps, name, &deny).await, "operator-bounds", "orphaned objects");
    }
    for beside in [
        json!({"data": {"policy.json": r#"{"grants":[2]}"#}}),
        json!({"data": {"other.json": "{}"}}),
        json!({"binaryData": {"other": "AA=="}}),
        json!({"immutable": true}),
        json!({"metadata": {"labels": {"team": "a"}}}),
        json!({"metadata": {"annotations": {"mcp-entra.dev/adopt": "graph"}}}),
        json!({"metadata": {"finalizers": ["example.com/stay"]}}),
    ] {
        let mut change = deny.clone();
        for (key, value) in beside.as_object().unwrap() {
            match (&mut change[key], value) {
                (Value::Object(into), Value::Object(from)) => into.extend(from.clone()),
                (into, from) => *into = from.clone(),
            }
        }
        assert_refused(patch(&maps, "graph-policy", &change).await, "operator-bounds", "orphaned objects");
    }
    assert_refused(delete(&maps, "graph-policy").await, "operator-bounds", "orphaned objects");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_only_deletes_orphans_that_are_routes() {
    let guarded = Guarded::get().await;
    let namespace = orphaned(guarded).await;
    let operator = guarded.as_user(OPERATOR, &[]);
    for (version, kind) in [("networking.k8s.io/v1", "Ingress"), ("gateway.networking.k8s.io/v1", "HTTPRoute")] {
        delete(&objects(&operator, &namespace, version, kind), "graph").await.unwrap();
    }
    for kind in ["Service", "ServiceAccount"] {
        let kept = objects(&operator, &namespace, "v1", kind);
        assert_refused(delete(&kept, "graph").await, "operator-bounds", "orphaned objects");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_may_only_change_the_annotation_of_orphans_that_offers_them() {
    let guarded = Guarded::get().await;
    let namespace = orphaned(guarded).await;
    let person = guarded.person();
    let adopt = json!({"metadata": {"annotations": {"mcp-entra.dev/adopt": "graph"}}});
    for (version, kind, name) in [
        ("v1", "ConfigMap", "graph-policy"),
        ("v1", "Service", "graph"),
        ("v1", "ServiceAccount", "graph"),
        ("networking.k8s.io/v1", "Ingress", "graph"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "graph"),
    ] {
        let theirs = objects(&person, &namespace, version, kind);
        patch(&theirs, name, &adopt).await.unwrap();
        for beside in [
            json!({"annotations": {"mcp-entra.dev/adopt": "graph", "team.example/note": "mine"}}),
            json!({"annotations": {"mcp-entra.dev/adopt": "graph"}, "labels": {"team": "a"}}),
            json!({"annotations": {"mcp-entra.dev/adopt": "graph"}, "labels": null}),
            json!({"annotations": {"mcp-entra.dev/adopt": "graph"}, "finalizers": null}),
            json!({"annotations": {"mcp-entra.dev/adopt": "graph"}, "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "u"}]}),
        ] {
            let answer = patch(&theirs, name, &json!({"metadata": beside})).await;
            assert_refused(answer, "only-operator-writes", "change the McpServer instead");
        }
        assert_refused(delete(&theirs, name).await, "only-operator-writes", "change the McpServer instead");
    }
    let with = |part: &str, value: Value| {
        let mut change = adopt.clone();
        change[part] = value;
        change
    };
    for (kind, name, change) in [
        ("ConfigMap", "graph-policy", with("data", json!({"policy.json": "{}"}))),
        ("ConfigMap", "owned-policy", adopt.clone()),
        ("Service", "graph", with("spec", json!({"selector": {"app": "mine"}}))),
        ("ServiceAccount", "graph", with("imagePullSecrets", json!([{"name": "mine"}]))),
    ] {
        let answer = patch(&objects(&person, &namespace, "v1", kind), name, &change).await;
        assert_refused(answer, "only-operator-writes", "change the McpServer instead");
    }
    let owned = objects(&person, TEAM, "v1", "ConfigMap");
    assert_refused(
        patch(&owned, "routed-policy", &adopt).await,
        "only-operator-writes",
        "change the McpServer instead",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_orphans_the_children_of_a_server_is_refused() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    let person = guarded.person();
    create(&person, &namespace, &mk_server("kept"), false).await.unwrap();
    let servers = objects(&person, &namespace, "mcp-entra.dev/v1alpha1", "McpServer");
    let dry = |parameters: DeleteParams| DeleteParams { dry_run: true, ..parameters };
    let answer = servers.delete("kept", &dry(DeleteParams::orphan())).await;
    assert_refused(answer.map(drop).map_err(|error| error.to_string()), "refuse-orphaning", "must not orphan");
    let finalizer = |name: &str| json!({"metadata": {"finalizers": [name]}});
    let answer = patch(&servers, "kept", &finalizer("orphan")).await;
    assert_refused(answer, "refuse-orphaning", "must not orphan");
    patch(&servers, "kept", &finalizer("example.com/orphan")).await.unwrap();
    for allowed in [DeleteParams::background(), DeleteParams::foreground(), DeleteParams::default()] {
        servers.delete("kept", &dry(allowed)).await.unwrap();
    }
}
