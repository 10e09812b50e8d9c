//! Two replicas: one works, the other takes over, and never do both. They are processes here, each under an account of
//! its own with the same rights, so that the audit log tells who wrote what.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use k8s_openapi::api::{coordination::v1::Lease, rbac::v1::RoleBinding};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use mcp_entra_crds::McpServer;
use mcp_entra_operator::{Lost, RunError};
use serde_json::json;
use testbed::{
    control_plane::Marker,
    shared::Shared,
    supervisor::{Child, Command, Supervisor},
};
use tokio::sync::{Mutex, MutexGuard};

use crate::harness::{Cluster, apply, find, mk_server, status_of, until};

const SYSTEM: &str = "mcp-entra-system";
const ACCOUNTS: [&str; 2] = ["mcp-entra-operator", "second-operator"];

/// A cluster for these tests, which take turns: there is one lease.
async fn cluster() -> (&'static Cluster, Client, MutexGuard<'static, ()>) {
    static CLUSTER: Shared<Cluster> = Shared::new();
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    let start = async || {
        let cluster = Cluster::start().await?;
        share_rights(&cluster.plane.client()?, ACCOUNTS[1]).await?;
        Ok(cluster)
    };
    let cluster = tokio::task::spawn_blocking(move || CLUSTER.get_or_start(start).unwrap()).await.unwrap();
    (cluster, cluster.plane.client().unwrap(), turn)
}

/// Gives an account of its own the rights that the operator ships with.
async fn share_rights(client: &Client, account: &str) -> anyhow::Result<()> {
    let rights = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rbac.yaml"))?;
    for document in serde_yaml::Deserializer::from_str(&rights) {
        let mut object: serde_json::Value = serde::Deserialize::deserialize(document)?;
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if kind == "ServiceAccount" || kind.ends_with("Binding") {
            object["metadata"]["name"] = json!(account);
            if kind != "ServiceAccount" {
                object["subjects"][0]["name"] = json!(account);
            }
            apply(client, &object).await?;
        }
    }
    Ok(())
}

struct Replica {
    process: Child,
    url: String,
}

/// Starts the program, under that account and name.
async fn replica(cluster: &Cluster, supervisor: &Supervisor, account: &str, lease_seconds: u32) -> Replica {
    let kubeconfig = cluster.plane.kubeconfig_for_service_account(SYSTEM, account).await.unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = supervisor.folder().join(format!("{account}.log"));
    let command = Command::new(env!("CARGO_BIN_EXE_mcp-entra-operator"), log)
        .args(["run", "--server-image=x", "--status-poll-seconds=1", "--identity", account, "--listen"])
        .args([address.to_string(), format!("--lease-duration-seconds={lease_seconds}")])
        .env("KUBECONFIG", kubeconfig.display().to_string());
    Replica { process: supervisor.spawn(command).await.unwrap(), url: format!("http://{address}") }
}

async fn until_leads(client: &Client, account: &str) {
    let leases = Api::<Lease>::namespaced(client.clone(), SYSTEM);
    until(&format!("{account} leads"), async || {
        let lease = leases.get_opt("mcp-entra-operator").await.unwrap();
        lease.and_then(|lease| lease.spec?.holder_identity).as_deref() == Some(account)
    })
    .await;
}

impl Replica {
    async fn until_ready(&self) {
        until("it is ready", async || status_of(&self.url, "/readyz").await == Some(200)).await;
    }

    async fn leads(&self) -> bool {
        let metrics = reqwest::get(format!("{}/metrics", self.url)).await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "mcp_entra_operator_leader 1")
    }
}

/// Applies a server, or changes it, and waits until an operator has taken notice.
async fn scale(client: &Client, name: &str, replicas: i32) {
    let servers = Api::<McpServer>::namespaced(client.clone(), "default");
    let mut server = mk_server();
    server["metadata"]["name"] = json!(name);
    if servers.get_opt(name).await.unwrap().is_none() {
        servers.patch(name, &PatchParams::apply("kubectl"), &Patch::Apply(&server)).await.unwrap();
    }
    let change = json!({"spec": {"replicas": replicas}});
    let changed = servers.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
    until(&format!("{name} with {replicas} replicas is programmed"), async || {
        let status = servers.get(name).await.unwrap().status.unwrap_or_default();
        status.observed_generation == changed.metadata.generation
            && find(&status.conditions, "Programmed").is_some_and(|condition| condition.status == "True")
    })
    .await;
}

/// Who wrote anything but the lease, in that order, each turn once.
fn turns(cluster: &Cluster, since: Marker) -> Vec<String> {
    let writes = cluster.plane.audit().writes(since, &format!("system:serviceaccount:{SYSTEM}:*")).unwrap();
    let mut turns: Vec<String> = writes
        .into_iter()
        .filter(|write| write.resource != "leases")
        .map(|write| write.user.rsplit(':').next().unwrap_or_default().to_owned())
        .collect();
    turns.dedup();
    turns
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_is_followed_within_the_leases_time_and_both_never_write() {
    let (cluster, client, _turn) = cluster().await;
    let (supervisor, since) = (Supervisor::start().unwrap(), cluster.plane.audit().mark().unwrap());
    let first = replica(cluster, &supervisor, ACCOUNTS[0], 6).await;
    until_leads(&client, ACCOUNTS[0]).await;
    let second = replica(cluster, &supervisor, ACCOUNTS[1], 6).await;
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
    assert_eq!(turns(cluster, since), ACCOUNTS);
    second.process.terminate(Duration::from_secs(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_end_hands_over_at_once() {
    let (cluster, client, _turn) = cluster().await;
    let (supervisor, since) = (Supervisor::start().unwrap(), cluster.plane.audit().mark().unwrap());
    let first = replica(cluster, &supervisor, ACCOUNTS[0], 15).await;
    until_leads(&client, ACCOUNTS[0]).await;
    let second = replica(cluster, &supervisor, ACCOUNTS[1], 15).await;
    second.until_ready().await;
    scale(&client, "ended", 1).await;

    let told = Instant::now();
    let ended = tokio::spawn(async move { first.process.terminate(Duration::from_secs(20)).await });
    until_leads(&client, ACCOUNTS[1]).await;
    let took = told.elapsed();
    assert!(took < Duration::from_secs(4), "it took {took:?} to hand over");
    assert_eq!(ended.await.unwrap().code, Some(0));
    scale(&client, "ended", 0).await;
    assert_eq!(turns(cluster, since), ACCOUNTS);
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
    assert!(matches!(ended, Err(RunError::Lost(Lost::Expired(_)))), "{ended:?}");
    let took = cut_off.elapsed();
    assert!(took < Duration::from_secs(6), "another might have led by then: {took:?}");

    binding.metadata = serde_json::from_value(json!({"name": ACCOUNTS[0]})).unwrap();
    bindings.create(&Default::default(), &binding).await.unwrap();
}
