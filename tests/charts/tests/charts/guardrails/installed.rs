//! What stands under the guardrails works: they are sound, and neither operator nor Kubernetes is in their way.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch};
use serde_json::{Value, json};

use super::cluster::{Guarded, IMAGE, OPERATOR, TEAM, mk_server, until};
use super::images::mk_pod;
use super::managed::children;
use super::requests::{assert_refused, create, delete, objects, patch};

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_is_checked_by_the_api_server_and_none_gives_a_warning() {
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
async fn servers_have_pods_and_every_kind_of_child() {
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
async fn a_server_that_is_deleted_takes_all_that_it_owned_with_it() {
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
async fn a_namespace_that_is_deleted_takes_its_servers_with_it() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    guarded.serve(&namespace, &mk_server("gone")).await;
    let namespaces = Api::<Namespace>::all(guarded.person());
    namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    until("it is gone", async || namespaces.get_opt(&namespace).await.unwrap().is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_is_adopted_and_from_then_on_kept_from_whoever_offered_it() {
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

/// Leaves a namespace out of the guardrails, or not, and waits until it is so.
async fn guard(guarded: &Guarded, namespace: &str, is_guarded: bool) {
    let namespaces = Api::<Namespace>::all(guarded.admin());
    let value = (!is_guarded).then_some("true");
    let label = Patch::Merge(json!({"metadata": {"labels": {"mcp-entra.dev/unguarded": value}}}));
    namespaces.patch(namespace, &Default::default(), &label).await.unwrap();
    // Every policy looks at the same label of the namespace, as the API server has seen it.
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

/// Of a registry that is not allowed.
fn foreign_image() -> String {
    IMAGE.replace("registry", "other")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_the_selector_leaves_out_is_not_guarded_but_for_the_bounds_of_the_operator() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    assert!(create(&guarded.person(), &namespace, &mk_foreign_server(), true).await.is_err());
    guard(guarded, &namespace, false).await;
    let operator = guarded.as_user(OPERATOR, &[]);
    assert_refused(create(&operator, &namespace, &mk_pod(IMAGE), true).await, "operator-bounds", "policy-revision");
    // A label of anything else is none of the namespace.
    let servers = objects(&guarded.person(), TEAM, "mcp-entra.dev/v1alpha1", "McpServer");
    let image = foreign_image();
    let labelled = json!({"metadata": {"labels": {"mcp-entra.dev/unguarded": "true"}}, "spec": {"image": image}});
    assert_refused(patch(&servers, "routed", &labelled).await, "allowed-registries-of-servers", &image);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stood_there_before_a_guardrail_is_labelled_nudged_and_deleted_and_refused_with_its_next_change() {
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
