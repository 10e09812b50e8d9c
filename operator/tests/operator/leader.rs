//! Tests of two replicas: one leads, the other takes over, and never both at the same time.

use std::time::{Duration, Instant};

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use mcp_entra_operator::{LeaseLost, RunError};
use serde_json::json;
use testbed::{control_plane::Marker, supervisor::Supervisor};

use crate::{
    harness::Cluster,
    replicas::{ACCOUNTS, SYSTEM, cluster, replica, scale, until_leads},
};

/// Returns the writers of anything except the lease, in order, each turn once.
async fn turns(cluster: &Cluster, since: Marker) -> Vec<String> {
    let writes = cluster.plane.audit().writes(since, &format!("system:serviceaccount:{SYSTEM}:*")).await.unwrap();
    let mut turns: Vec<String> = writes
        .into_iter()
        .filter(|write| write.resource != "leases")
        .map(|write| write.user.rsplit(':').next().unwrap_or_default().to_owned())
        .collect();
    turns.dedup();
    turns
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_leads_within_the_leases_time_after_a_kill_and_two_never_write() {
    let (cluster, client, _turn) = cluster().await;
    let (supervisor, since) = (Supervisor::start().unwrap(), cluster.plane.audit().mark().unwrap());
    let first =
        replica(cluster, &supervisor, ACCOUNTS[0], |command| command.args(["--lease-duration-seconds=6"])).await;
    until_leads(&client, ACCOUNTS[0]).await;
    let second =
        replica(cluster, &supervisor, ACCOUNTS[1], |command| command.args(["--lease-duration-seconds=6"])).await;
    second.until_ready().await;
    assert!(first.leads().await && !second.leads().await);
    scale(&client, "killed", 1).await;

    first.process.kill().await;
    let killed = Instant::now();
    scale(&client, "killed", 0).await;
    let took = killed.elapsed();
    assert!(took > Duration::from_secs(3), "the lease was taken while it ran, after {took:?}");
    assert!(took < Duration::from_secs(9), "the lease ended after 6 s, but the work went on after {took:?}");
    assert!(second.leads().await);
    assert_eq!(turns(cluster, since).await, ACCOUNTS);
    second.process.terminate(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_leader_hands_over_at_once() {
    let (cluster, client, _turn) = cluster().await;
    let (supervisor, since) = (Supervisor::start().unwrap(), cluster.plane.audit().mark().unwrap());
    let first = replica(cluster, &supervisor, ACCOUNTS[0], |command| command).await;
    until_leads(&client, ACCOUNTS[0]).await;
    let second = replica(cluster, &supervisor, ACCOUNTS[1], |command| command).await;
    second.until_ready().await;
    scale(&client, "ended", 1).await;

    let told = Instant::now();
    let ended = tokio::spawn(async move { first.process.terminate(Duration::from_secs(20)).await });
    until_leads(&client, ACCOUNTS[1]).await;
    let took = told.elapsed();
    assert!(took < Duration::from_secs(4), "it took {took:?} to hand over");
    assert_eq!(ended.await.unwrap().code, Some(0));
    scale(&client, "ended", 0).await;
    assert_eq!(turns(cluster, since).await, ACCOUNTS);
    second.process.terminate(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_renew_ends_before_another_may_lead() {
    let (cluster, client, _turn) = cluster().await;
    let operator = cluster
        .operator_with(|options| {
            options.lease_duration_seconds = 6;
            options.identity = Some("cut-off".into());
        })
        .await
        .unwrap();
    until_leads(&client, "cut-off").await;
    let bindings = Api::<RoleBinding>::namespaced(client.clone(), SYSTEM);
    let mut binding = bindings.get(ACCOUNTS[0]).await.unwrap();
    bindings.delete(ACCOUNTS[0], &Default::default()).await.unwrap();
    let cut_off = Instant::now();
    let ended = operator.ended.await.unwrap();
    assert!(matches!(ended, Err(RunError::Lost(LeaseLost::Expired(_)))), "{ended:?}");
    let took = cut_off.elapsed();
    assert!(took < Duration::from_secs(6), "another replica could lead by then: {took:?}");

    binding.metadata = serde_json::from_value(json!({"name": ACCOUNTS[0]})).unwrap();
    bindings.create(&Default::default(), &binding).await.unwrap();
}
