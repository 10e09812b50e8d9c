//! Tests of upgrades, a rollback and an uninstallation of a release.

use std::path::{Path, PathBuf};

use mcp_entra_crds::custom_resource_definitions;
use serde_json::json;
use testbed::chart::{OPERATOR, chart};

use crate::bed::{Bed, mk_server, until};

/// Chart of an earlier version, before McpServers could be suspended.
fn older_chart(folder: &Path) -> PathBuf {
    let older = folder.join("older");
    copy(Path::new(&chart()), &older);
    let file = older.join("charts/mcp-entra-crds/definitions/mcpservers.mcp-entra.dev.yaml");
    let mut definition: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let spec = schema["properties"]["spec"]["properties"].as_mapping_mut().unwrap();
    spec.remove("suspend").unwrap();
    std::fs::write(file, serde_yaml::to_string(&definition).unwrap()).unwrap();
    older
}

/// Copies a folder, and the targets of its links.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

fn mk_suspended() -> serde_json::Value {
    let mut server = mk_server("default");
    server["spec"]["suspend"] = json!(true);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_adds_new_fields_and_arguments_and_a_rollback_removes_them() {
    let bed = Bed::start().await.unwrap();
    let older = older_chart(bed.supervisor.folder());
    bed.release("install", older.to_str().unwrap(), &[]).await.unwrap();
    bed.apply(&mk_server("default")).await.unwrap();
    bed.until_condition("default", "graph", "Programmed").await;
    let refusal = bed.apply(&mk_suspended()).await.unwrap_err().to_string();
    assert!(refusal.contains("suspend"), "{refusal}");
    let before = bed.arguments().await;

    bed.release("upgrade", &chart(), &["--set=allowedHosts={*.mcp.contoso.com}"]).await.unwrap();
    assert!(bed.arguments().await.contains(&"--allowed-host=*.mcp.contoso.com".to_owned()));
    until("the new field is served", async || bed.apply(&mk_suspended()).await.is_ok()).await;
    bed.apply(&mk_server("default")).await.unwrap();

    bed.helm.run(&["rollback", "mcp-entra", "1", "--namespace", OPERATOR.0, "--wait"]).await.unwrap();
    assert_eq!(bed.arguments().await, before);
    until("the new field is gone", async || bed.apply(&mk_suspended()).await.is_err()).await;
    bed.until_condition("default", "graph", "Programmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_without_the_hosts_in_use_fails_with_a_message_and_deletes_nothing() {
    let bed = Bed::start().await.unwrap();
    // A release without a list refuses hosts. A server that only requests a host does not block an upgrade.
    let notes = bed.release("install", &chart(), &[]).await.unwrap();
    assert!(notes.contains("No McpServer can be exposed, since allowedHosts is empty"), "{notes}");
    let mut server = mk_server("default");
    server["spec"]["exposure"] =
        json!({"host": "graph.mcp.contoso.com", "ingress": {}, "tls": {"secretName": "graph-tls"}});
    bed.apply(&server).await.unwrap();
    let live = async || serde_json::to_value(bed.api("McpServer", "default").get("graph").await.unwrap()).unwrap();
    until("the host is refused", async || live().await.to_string().contains("HostNotAllowed")).await;
    bed.release("upgrade", &chart(), &[]).await.unwrap();

    bed.release("upgrade", &chart(), &["--set=allowedHosts={*}"]).await.unwrap();
    let is_exposed = async || {
        let is_there = bed.api("Ingress", "default").get_opt("graph").await.unwrap().is_some();
        is_there && live().await["status"]["url"] == "https://graph.mcp.contoso.com/mcp"
    };
    until("the server is exposed", is_exposed).await;
    let before = bed.arguments().await;
    for more in [&[][..], &["--set=watchNamespaces={default}"]] {
        let refusal = bed.release("upgrade", &chart(), more).await.unwrap_err().to_string();
        assert!(refusal.contains("graph.mcp.contoso.com (default/graph)"), "{refusal}");
        assert!(refusal.contains(r#"allowedHosts: ["graph.mcp.contoso.com"]"#), "{refusal}");
    }
    assert_eq!(bed.arguments().await, before);
    assert!(is_exposed().await);
    bed.release("upgrade", &chart(), &["--set=allowedHosts={graph.mcp.contoso.com}"]).await.unwrap();
    assert!(is_exposed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_release_leaves_kinds_and_servers_and_a_new_one_adopts_them() {
    let bed = Bed::start().await.unwrap();
    bed.release("install", &chart(), &[]).await.unwrap();
    bed.apply(&mk_server("default")).await.unwrap();
    bed.until_condition("default", "graph", "Programmed").await;
    let uid = bed.api("McpServer", "default").get("graph").await.unwrap().metadata.uid;

    bed.helm.run(&["uninstall", "mcp-entra", "--namespace", OPERATOR.0, "--wait"]).await.unwrap();
    assert!(bed.api("Deployment", OPERATOR.0).get_opt(OPERATOR.1).await.unwrap().is_none());
    assert!(bed.api("ClusterRole", "").get_opt("mcp-entra-operator").await.unwrap().is_none());
    assert_eq!(bed.api("McpServer", "default").get("graph").await.unwrap().metadata.uid, uid);
    assert!(bed.api("Deployment", "default").get_opt("graph").await.unwrap().is_some(), "the server runs on");

    bed.release("install", &chart(), &[]).await.unwrap();
    let mut changed = mk_server("default");
    changed["spec"]["replicas"] = json!(2);
    bed.apply(&changed).await.unwrap();
    until("the server is looked after again", async || {
        let deployment = bed.api("Deployment", "default").get("graph").await.unwrap();
        deployment.data["spec"]["replicas"] == 2
    })
    .await;
    assert_eq!(bed.api("McpServer", "default").get("graph").await.unwrap().metadata.uid, uid);
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_adopts_kinds_that_were_applied_by_other_means_if_requested() {
    let bed = Bed::start().await.unwrap();
    for definition in custom_resource_definitions().unwrap() {
        bed.apply(&serde_json::to_value(definition).unwrap()).await.unwrap();
    }
    let refusal = bed.release("install", &chart(), &[]).await.unwrap_err().to_string();
    assert!(refusal.contains("mcprolemappings.mcp-entra.dev") && refusal.contains("ownership"), "{refusal}");
    bed.release("install", &chart(), &["--take-ownership"]).await.unwrap();
    bed.apply(&mk_server("default")).await.unwrap();
    bed.until_condition("default", "graph", "Programmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_removal_of_a_release_that_does_not_keep_its_kinds_deletes_them_and_the_servers() {
    let bed = Bed::start().await.unwrap();
    bed.release("install", &chart(), &["--set=crds.keep=false"]).await.unwrap();
    bed.apply(&mk_server("default")).await.unwrap();
    bed.helm.run(&["uninstall", "mcp-entra", "--namespace", OPERATOR.0, "--wait"]).await.unwrap();
    let definitions = bed.api("CustomResourceDefinition", "");
    until("the kinds are gone", async || definitions.get_opt("mcpservers.mcp-entra.dev").await.unwrap().is_none())
        .await;
}
