//! Tests of operators as processes, each under its own account with the same rights, so that the audit log shows the
//! writer. They share a cluster, and run one after another: there is one lease.

use std::path::PathBuf;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use mcp_entra_crds::McpServer;
use serde_json::json;
use testbed::{
    chart,
    shared::Shared,
    supervisor::{Child, Command, Supervisor},
};
use tokio::sync::{Mutex, MutexGuard};

use crate::harness::{Cluster, apply, find, mk_server, status_of, until};

pub(crate) const SYSTEM: &str = "mcp-entra-system";
pub(crate) const ACCOUNTS: [&str; 2] = ["mcp-entra-operator", "second-operator"];

/// Cluster for these tests, which run one after another: there is one lease.
pub(crate) async fn cluster() -> (&'static Cluster, Client, MutexGuard<'static, ()>) {
    static CLUSTER: Shared<Cluster> = Shared::new();
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    let start = async || {
        let cluster = Cluster::bare().await?;
        share_rights(&cluster.plane.client()?, ACCOUNTS[1]).await?;
        Ok(cluster)
    };
    let cluster = tokio::task::spawn_blocking(move || CLUSTER.get_or_start(start).unwrap()).await.unwrap();
    (cluster, cluster.plane.client().unwrap(), turn)
}

/// Grants the operator's shipped rights to a new account.
async fn share_rights(client: &Client, account: &str) -> anyhow::Result<()> {
    for mut object in chart::rights(&Supervisor::start()?, &[]).await? {
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

pub(crate) struct Replica {
    pub(crate) process: Child,
    pub(crate) url: String,
    pub(crate) log: PathBuf,
}

/// Starts the program, under this account and name.
pub(crate) async fn replica(
    cluster: &Cluster,
    supervisor: &Supervisor,
    account: &str,
    change: impl FnOnce(Command) -> Command,
) -> Replica {
    let kubeconfig = cluster.plane.kubeconfig_for_service_account(SYSTEM, account).await.unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = supervisor.folder().join(format!("{account}.log"));
    let command = Command::new(env!("CARGO_BIN_EXE_mcp-entra-operator"), &log)
        .args(["run", "--server-image=x", "--allowed-host=*", "--status-poll-seconds=1", "--identity", account])
        .args([format!("--listen={address}")])
        .env("KUBECONFIG", kubeconfig.display().to_string());
    let process = supervisor.spawn(change(command)).await.unwrap();
    Replica { process, url: format!("http://{address}"), log }
}

pub(crate) async fn until_leads(client: &Client, account: &str) {
    let leases = Api::<Lease>::namespaced(client.clone(), SYSTEM);
    until(&format!("{account} leads"), async || {
        let lease = leases.get_opt("mcp-entra-operator").await.unwrap();
        lease.and_then(|lease| lease.spec?.holder_identity).as_deref() == Some(account)
    })
    .await;
}

impl Replica {
    pub(crate) async fn until_ready(&self) {
        until("it is ready", async || status_of(&self.url, "/readyz").await == Some(200)).await;
    }

    pub(crate) async fn leads(&self) -> bool {
        let metrics = reqwest::get(format!("{}/metrics", self.url)).await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "mcp_entra_operator_leader 1")
    }
}

/// Applies a server, or changes it, and waits until an operator has reconciled it.
pub(crate) async fn scale(client: &Client, name: &str, replicas: i32) {
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
