//! Tests of an installed chart.

use testbed::chart::{OPERATOR, REGISTRY_VALUE, chart};

use crate::bed::{Bed, installed, mk_server};

#[tokio::test(flavor = "multi_thread")]
async fn the_installed_operators_are_available_and_a_server_is_reconciled() {
    let bed = installed().await;
    let deployment = bed.api("Deployment", OPERATOR.0).get(OPERATOR.1).await.unwrap();
    assert_eq!(deployment.data["status"]["availableReplicas"], 2);
    bed.namespace("looked-after").await;
    bed.apply(&mk_server("looked-after")).await.unwrap();
    bed.until_condition("looked-after", "graph", "Programmed").await;
    let server = bed.api("Deployment", "looked-after").get("graph").await.unwrap();
    let image = &server.data["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, &format!("localhost/mcp-entra-server:{}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_test_prints_the_leader() {
    let bed = installed().await;
    let told = bed.helm.run(&["test", "mcp-entra", "--namespace", OPERATOR.0, "--logs"]).await.unwrap();
    assert!(told.contains("Succeeded"), "{told}");
    let log = bed.node.logs(OPERATOR.0, "mcp-entra-operator-check").unwrap();
    assert!(log.contains("all denies and claims can be read") && log.contains("leads and renews its lease"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_test_fails_for_missing_rights_and_names_them() {
    let bed = Bed::start().await.unwrap();
    let release = ["install", "mcp-entra", &chart(), "--namespace", OPERATOR.0, "--set", REGISTRY_VALUE];
    bed.helm.run(&[&release[..], &["--set=rbac.create=false"]].concat()).await.unwrap();
    bed.helm.refused(&["test", "mcp-entra", "--namespace", OPERATOR.0]).await.unwrap();
    let log = bed.node.logs(OPERATOR.0, "mcp-entra-operator-check").unwrap();
    assert!(log.contains("may not list clustermcprolemappings") && log.contains("--set rbac.create=true"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_notes_name_the_next_command_and_the_open_settings() {
    let bed = installed().await;
    let notes = bed.helm.run(&["get", "notes", "mcp-entra", "--namespace", OPERATOR.0]).await.unwrap();
    for expected in [
        "helm test mcp-entra --namespace mcp-entra-system",
        "kubectl apply -f",
        "No McpServer can be exposed, since allowedHosts is empty",
    ] {
        assert!(notes.contains(expected), "{notes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_release_that_watches_the_same_namespaces_is_refused() {
    let bed = installed().await;
    let second = ["install", "second", &chart(), "--namespace", "second", "--create-namespace"];
    let values = ["--set", REGISTRY_VALUE, "--set=crds.install=false", "--set=rbac.teamRoles=false"];
    let refusal = bed.helm.refused(&[&second[..], &values].concat()).await.unwrap();
    assert!(refusal.contains(r#"ClusterRole "mcp-entra-operator""#) && refusal.contains("ownership"), "{refusal}");
    let within = ["--set=watchNamespaces={default}"];
    let refusal = bed.helm.refused(&[&second[..], &values, &within].concat()).await.unwrap();
    assert!(
        refusal.contains("release mcp-entra of namespace mcp-entra-system already watches every namespace"),
        "{refusal}"
    );
}
