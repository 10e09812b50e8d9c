//! Tests of hosts by namespace.

use serde_json::json;

use super::cluster::{Guarded, TEAM, mk_ingress, mk_server};
use super::requests::{Answer, assert_refused, create, objects, patch};

async fn ask(namespace: &str, host: &str) -> Answer {
    let mut server = mk_server("host");
    server["spec"]["exposure"] = mk_ingress(host);
    create(&Guarded::get().await.person(), namespace, &server, true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_may_use_its_own_hosts_and_not_similar_ones() {
    for host in ["graph.contoso.com", "graph.mcp.contoso.com", "a.b.mcp.contoso.com"] {
        ask(TEAM, host).await.unwrap();
    }
    for host in ["mcp.contoso.com", "evilmcp.contoso.com", "graph.contoso.com.evil.example", "a.graph.contoso.com"] {
        assert_refused(ask(TEAM, host).await, "allowed-hosts", "guardrails.allowedHosts.namespaces.productivity");
    }
    // The default applies to namespaces that are not named.
    assert_refused(
        ask(TEAM, "a.shared.example").await,
        "allowed-hosts",
        "(allowed: *.mcp.contoso.com, graph.contoso.com)",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlisted_namespace_has_the_default_hosts_and_one_with_an_empty_list_has_none() {
    let guarded = Guarded::get().await;
    let other = guarded.namespace().await;
    ask(&other, "a.shared.example").await.unwrap();
    assert_refused(ask(&other, "graph.contoso.com").await, "allowed-hosts", "(allowed: *.shared.example)");

    let named = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hostless"}});
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(guarded.admin());
    namespaces.create(&Default::default(), &serde_json::from_value(named).unwrap()).await.unwrap();
    assert_refused(ask("hostless", "a.shared.example").await, "allowed-hosts", "(no host is allowed)");
    create(&guarded.person(), "hostless", &mk_server("hostless"), true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_a_star_may_name_any_host_and_its_neighbours_may_not() {
    let guarded = Guarded::get().await;
    let maps = objects(&guarded.admin(), "mcp-entra-system", "v1", "ConfigMap");
    let (open, other) = (guarded.namespace().await, guarded.namespace().await);
    let change = kube::api::Patch::Merge(json!({"data": {open.as_str(): "*"}}));
    maps.patch("mcp-entra-operator-allowed-hosts", &Default::default(), &change).await.unwrap();
    super::cluster::until("any host is allowed", async || ask(&open, "any.example").await.is_ok()).await;
    assert_refused(ask(&other, "any.example").await, "allowed-hosts", "any.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_cannot_be_changed_to_one_that_is_not_allowed() {
    let servers = objects(&Guarded::get().await.person(), TEAM, "mcp-entra.dev/v1alpha1", "McpServer");
    let host = |host: &str| json!({"spec": {"exposure": {"host": host}}});
    patch(&servers, "ingress", &host("other.mcp.contoso.com")).await.unwrap();
    assert_refused(patch(&servers, "ingress", &host("other.example")).await, "allowed-hosts", "other.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_adds_another_host_without_helm_and_removes_it() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    assert!(ask(&namespace, "late.example").await.is_err());
    let maps = objects(&guarded.admin(), "mcp-entra-system", "v1", "ConfigMap");
    let hosts = async |hosts: Option<&str>| {
        let change = kube::api::Patch::Merge(json!({"data": {namespace.as_str(): hosts}}));
        maps.patch("mcp-entra-operator-allowed-hosts", &Default::default(), &change).await.unwrap();
    };
    hosts(Some("late.example")).await;
    super::cluster::until("the host is allowed", async || ask(&namespace, "late.example").await.is_ok()).await;
    hosts(None).await;
    super::cluster::until("the host is refused", async || ask(&namespace, "late.example").await.is_err()).await;
}
