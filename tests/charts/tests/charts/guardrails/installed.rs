//! Tests that guardrails are valid, and block neither the operator nor Kubernetes.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch};
use serde_json::{Value, json};

use super::cluster::{Guarded, IMAGE, OPERATOR, TEAM, mk_server, until};
use super::images::mk_pod;
use super::managed::children;
use super::requests::{assert_refused, create, delete, objects, patch};

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_type_checks_every_policy_without_a_warning() {
    let policies = Api::<ValidatingAdmissionPolicy>::all(Guarded::get().await.admin());
    let all = policies.list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 9);
    for policy in all {
        let name = policy.metadata.name.unwrap();
        let mut checked = None;
        until("it is checked", async || {
            checked = policies.get(&name).await.unwrap().status.and_then(|status| status.type_checking);
            checked.is_some()
        })
        .await;
        assert_eq!(checked.unwrap().expression_warnings, None, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_get_pods_and_every_kind_of_child() {
    let guarded = Guarded::get().await;
    let kinds = children(guarded).await;
    assert_eq!(kinds.len(), 12, "{kinds:?}");
    until("there are pods of both servers", async || {
        let pods = Api::<Pod>::namespaced(guarded.admin(), TEAM);
        pods.list(&ListParams::default()).await.unwrap().items.len() >= 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deletion_of_a_server_deletes_its_children() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    guarded.serve(&namespace, &mk_server("gone")).await;
    let pods = Api::<Pod>::namespaced(guarded.admin(), &namespace);
    until("it has a pod", async || !pods.list(&ListParams::default()).await.unwrap().items.is_empty()).await;
    let servers = objects(&guarded.person(), &namespace, "mcp-entra.dev/v1alpha1", "McpServer");
    servers.delete("gone", &DeleteParams::foreground()).await.unwrap();
    until("its pods are gone", async || pods.list(&ListParams::default()).await.unwrap().items.is_empty()).await;
    until("it is gone", async || servers.get_opt("gone").await.unwrap().is_none()).await;
    let accounts = objects(&guarded.admin(), &namespace, "v1", "ServiceAccount");
    until("its account is gone", async || accounts.get_opt("gone").await.unwrap().is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deletion_of_a_namespace_deletes_its_servers() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    guarded.serve(&namespace, &mk_server("gone")).await;
    let namespaces = Api::<Namespace>::all(guarded.person());
    namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    until("it is gone", async || namespaces.get_opt(&namespace).await.unwrap().is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offered_objects_are_adopted_and_then_protected_from_their_former_owner() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    let person = guarded.person();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "offered", "annotations": {"mcp-entra.dev/adopt": "offered"}},
        "spec": {"ports": [{"port": 80}]},
    });
    create(&person, &namespace, &service, false).await.unwrap();
    let services = objects(&person, &namespace, "v1", "Service");
    delete(&services, "offered").await.unwrap();
    guarded.serve(&namespace, &mk_server("offered")).await;
    assert_refused(delete(&services, "offered").await, "only-operator-writes", "dora");
}

/// Excludes a namespace from the guardrails, or includes it, and waits for the effect.
async fn guard(guarded: &Guarded, namespace: &str, is_guarded: bool) {
    let namespaces = Api::<Namespace>::all(guarded.admin());
    let value = (!is_guarded).then_some("true");
    let label = Patch::Merge(json!({"metadata": {"labels": {"mcp-entra.dev/unguarded": value}}}));
    namespaces.patch(namespace, &Default::default(), &label).await.unwrap();
    // Every policy uses the same label of the namespace, as the API server sees it.
    until("the API server has seen the label", async || {
        create(&guarded.person(), namespace, &mk_foreign_server(), true).await.is_err() == is_guarded
    })
    .await;
}

fn mk_foreign_server() -> Value {
    let mut server = mk_server("foreign");
    server["spec"]["image"] = json!(foreign_image());
    server
}

/// Image of a registry that is not allowed.
fn foreign_image() -> String {
    IMAGE.replace("registry", "other")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operators_bounds_apply_in_a_namespace_that_the_selector_excludes() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    assert!(create(&guarded.person(), &namespace, &mk_foreign_server(), true).await.is_err());
    guard(guarded, &namespace, false).await;
    let operator = guarded.as_user(OPERATOR, &[]);
    assert_refused(create(&operator, &namespace, &mk_pod(IMAGE), true).await, "operator-bounds", "policy-revision");
    // The label has an effect only on a namespace.
    let servers = objects(&guarded.person(), TEAM, "mcp-entra.dev/v1alpha1", "McpServer");
    let image = foreign_image();
    let labelled = json!({"metadata": {"labels": {"mcp-entra.dev/unguarded": "true"}}, "spec": {"image": image}});
    assert_refused(patch(&servers, "routed", &labelled).await, "allowed-registries-of-servers", &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_older_than_a_guardrail_are_labelled_nudged_and_deleted_and_their_next_change_is_refused() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    guard(guarded, &namespace, false).await;
    let platform = guarded.as_user("dora", &["platform"]);
    let mut pod = mk_pod(&foreign_image());
    pod["metadata"]["labels"] = json!({
        "app.kubernetes.io/name": "mcp-entra-server", "app.kubernetes.io/managed-by": "mcp-entra-operator",
    });
    for object in [&mk_foreign_server(), &pod] {
        create(&platform, &namespace, object, false).await.unwrap();
    }
    guard(guarded, &namespace, true).await;

    let servers = objects(&platform, &namespace, "mcp-entra.dev/v1alpha1", "McpServer");
    patch(&servers, "foreign", &json!({"metadata": {"labels": {"team": "a"}}})).await.unwrap();
    delete(&servers, "foreign").await.unwrap();
    let answer = patch(&servers, "foreign", &json!({"spec": {"suspend": true}})).await;
    assert_refused(answer, "allowed-registries-of-servers", "ask the cluster administrator");

    let nudge = json!({"metadata": {"annotations": {"mcp-entra.dev/policy-revision": "abc"}}});
    let operator = objects(&guarded.as_user(OPERATOR, &[]), &namespace, "v1", "Pod");
    patch(&operator, "probe", &nudge).await.unwrap();
    let pods = objects(&platform, &namespace, "v1", "Pod");
    let answer = patch(&pods, "probe", &json!({"spec": {"activeDeadlineSeconds": 60}})).await;
    assert_refused(answer, "allowed-registries-of-pods", "ask the cluster administrator");
}
