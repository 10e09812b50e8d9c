//! Tests of parallel releases that each watch some namespaces.

use std::time::Duration;

use serde_json::json;
use testbed::chart::{OPERATOR, chart};

use crate::bed::{Bed, mk_server};

const SECOND: [&str; 4] =
    ["--set=image.registry=localhost", "--set=crds.install=false", "--set=rbac.teamRoles=false", "--set=replicas=1"];

#[tokio::test(flavor = "multi_thread")]
async fn each_release_reconciles_only_its_own_namespaces() {
    let bed = Bed::start().await.unwrap();
    for namespace in ["one", "two", "nobodys"] {
        bed.namespace(namespace).await;
    }
    bed.release(
        "install",
        &chart(),
        &["--set=watchNamespaces={one}", "--set=allowedHosts={*.one.example}", "--set=replicas=1"],
    )
    .await
    .unwrap();
    let second = ["install", "second", &chart(), "--namespace", "second", "--create-namespace", "--wait"];
    bed.helm
        .run(&[&second[..], &SECOND, &["--set=watchNamespaces={two}", "--set=allowedHosts={*.two.example}"]].concat())
        .await
        .unwrap();

    for namespace in ["one", "two", "nobodys"] {
        bed.apply(&mk_server(namespace)).await.unwrap();
    }
    bed.until_condition("one", "graph", "Programmed").await;
    bed.until_condition("two", "graph", "Programmed").await;
    // A change that must not happen cannot be awaited.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let nobodys = bed.api("McpServer", "nobodys").get("graph").await.unwrap();
    let status = &nobodys.data["status"];
    assert_eq!(
        (&status["observedGeneration"], &status["conditions"]),
        (&json!(-1), &json!(null)),
        "no release reconciles it"
    );
    for release in [["mcp-entra", OPERATOR.0], ["second", "second"]] {
        let [name, namespace] = release;
        bed.helm.run(&["test", name, "--namespace", namespace]).await.unwrap();
    }

    let third = ["install", "third", &chart(), "--namespace", "third", "--create-namespace"];
    let refusal = bed.helm.refused(&[&third[..], &SECOND, &["--set=watchNamespaces={one}"]].concat()).await.unwrap();
    assert!(refusal.contains(r#"Role "mcp-entra-operator-in-namespace" in namespace "one""#), "{refusal}");
    for hosts in ["*.one.example", "a.one.example", "*.b.two.example", "*"] {
        let more = ["--set=watchNamespaces={nobodys}", &format!("--set=allowedHosts={{{hosts}}}")];
        let refusal = bed.helm.refused(&[&third[..], &SECOND, &more].concat()).await.unwrap();
        assert!(refusal.contains("overlaps") && refusal.contains("set different hosts for each release"), "{refusal}");
    }
    for more in [&[][..], &["--set=rbac.create=false"]] {
        let refusal = bed.helm.refused(&[&third[..], &SECOND, more].concat()).await.unwrap();
        assert!(refusal.contains("already watches some namespaces"), "{refusal}");
    }
}
