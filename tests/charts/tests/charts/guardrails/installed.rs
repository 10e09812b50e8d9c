//! What stands under the guardrails works: they are sound, and neither operator nor Kubernetes is in their way.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;

use super::cluster::{Guarded, IMAGE, TEAM, mk_server, until};
use super::managed::children;
use super::requests::{assert_refused, create, delete, objects, patch};

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_is_checked_by_the_api_server_and_none_gives_a_warning() {
    let policies = Api::<ValidatingAdmissionPolicy>::all(Guarded::get().await.admin());
    let all = policies.list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 8);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_the_selector_leaves_out_is_not_guarded() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    let other = IMAGE.replace("registry", "other");
    let mut server = mk_server("unguarded");
    server["spec"]["image"] = json!(other);
    assert!(create(&guarded.person(), &namespace, &server, true).await.is_err());
    let namespaces = Api::<Namespace>::all(guarded.admin());
    let label = kube::api::Patch::Merge(json!({"metadata": {"labels": {"mcp-entra.dev/unguarded": "true"}}}));
    namespaces.patch(&namespace, &Default::default(), &label).await.unwrap();
    until("it is let in", async || create(&guarded.person(), &namespace, &server, true).await.is_ok()).await;
    // A namespace of a team says itself whether it is left out only where the team may label it.
    let servers = objects(&guarded.person(), TEAM, "mcp-entra.dev/v1alpha1", "McpServer");
    let label = json!({"metadata": {"labels": {"mcp-entra.dev/unguarded": "true"}}, "spec": {"image": other}});
    assert_refused(patch(&servers, "routed", &label).await, "allowed-registries-of-servers", &other);
}
