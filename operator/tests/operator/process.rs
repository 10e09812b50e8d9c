//! Tests of the operator as a process: its endpoints, its end, and a start with existing objects.

use std::time::Duration;

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mcp_entra_crds::McpServer;
use serde_json::json;

use crate::harness::{Cluster, OPERATOR, find, mk_server, status_of, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_operator_is_ready_after_it_has_synced_and_writes_nothing_new() {
    let cluster = Cluster::start().await.unwrap();
    let servers = Api::<McpServer>::namespaced(cluster.plane.client().unwrap(), "default");
    servers.patch("graph", &PatchParams::apply("kubectl"), &Patch::Apply(mk_server())).await.unwrap();

    let first = cluster.operator().await.unwrap();
    until("the first operator is ready", async || status_of(&first.url, "/readyz").await == Some(200)).await;
    assert_eq!(status_of(&first.url, "/healthz").await, Some(200));
    until("the server is programmed", async || {
        let status = servers.get("graph").await.unwrap().status.unwrap_or_default();
        find(&status.conditions, "Programmed").is_some_and(|condition| condition.status == "True")
            // The last status without a node. Another write would follow an earlier one.
            && find(&status.conditions, "Available").is_some_and(|condition| condition.reason == "Unschedulable")
            // Published a moment after the condition, since it is no change.
            && status.replicas == 1
    })
    .await;
    let metrics = reqwest::get(format!("{}/metrics", first.url)).await.unwrap().text().await.unwrap();
    let value = |sample: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("mcp_entra_operator_{sample} ")));
        line.map(|value| value.parse::<f64>().unwrap())
    };
    let kind = "kind=\"McpServer\"";
    let passes = value(&format!("reconcile_duration_seconds_count{{{kind}}}")).unwrap();
    let outcomes = ["Settled", "Waiting", "Transient", "Terminal"];
    let by_outcome = outcomes.map(|outcome| value(&format!("reconciles_total{{{kind},outcome=\"{outcome}\"}}")));
    assert_eq!(by_outcome.into_iter().flatten().sum::<f64>(), passes, "{metrics}");
    assert_eq!(value("leader"), Some(1.0));
    assert_eq!(value(&format!("queue_depth{{{kind}}}")), Some(0.0));
    assert!(value(&format!("running_reconciles{{{kind}}}")).is_some_and(|running| running <= 1.0), "{metrics}");
    assert_eq!(value(&format!("conditions{{{kind},type=\"Programmed\",status=\"True\"}}")), Some(1.0));
    assert_eq!(value(&format!("conditions{{{kind},type=\"Programmed\",status=\"False\"}}")), None);
    // Children are created by server-side apply.
    for request in ["verb=\"list\",code=\"200\"", "verb=\"watch\",code=\"200\"", "verb=\"patch\",code=\"201\""] {
        assert!(value(&format!("api_requests_total{{{request}}}")) > Some(0.0), "{request}: {metrics}");
    }
    assert_eq!(value("api_requests_total{verb=\"delete\",code=\"200\"}"), None);
    assert!(!metrics.contains("graph"), "no name is a label: {metrics}");
    first.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), first.ended).await.expect("it drains").unwrap().unwrap();

    let mark = cluster.plane.audit().mark().unwrap();
    let second = cluster.operator().await.unwrap();
    until("the second operator is ready", async || status_of(&second.url, "/readyz").await == Some(200)).await;
    // Time for several reconciles. The wait itself is tested here.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut writes = cluster.plane.audit().writes(mark, OPERATOR).await.unwrap();
    writes.retain(|write| write.resource != "leases");
    assert_eq!(writes, []);

    servers.patch("graph", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 0}}))).await.unwrap();
    until("the second operator does its work", async || {
        let status = servers.get("graph").await.unwrap().status.unwrap_or_default();
        find(&status.conditions, "Available").is_some_and(|condition| condition.reason == "ScaledToZero")
    })
    .await;
    second.shutdown.cancel();
    second.ended.await.unwrap().unwrap();
}
