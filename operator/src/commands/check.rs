//! `check`: tests an installed operator with its own account. It must see all objects that it needs, and a replica must
//! lead. `helm test` runs it.

use std::{fmt::Write, time::Duration};

use clap::Args;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{Api, Client, Config, api::ListParams};
use mcp_entra_crds::McpServer;

use crate::runtime::{
    leader::LEASE,
    permissions::{self, Blind},
};

/// Timeout of each answer of the API server.
const ANSWER: Duration = Duration::from_secs(10);
/// The longest wait for a leader that renews its lease: several lease durations.
const LEADING: Duration = Duration::from_secs(60);
/// Pause between two looks at the lease.
const LOOK: Duration = Duration::from_secs(1);

/// The installation to check.
#[derive(Args, Clone, Debug)]
pub struct CheckOptions {
    /// A namespace that the operator watches. Repeatable. By default all namespaces.
    #[arg(long = "watch-namespace", value_name = "NAMESPACE")]
    pub watch_namespaces: Vec<String>,
    /// The operator's own namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = "mcp-entra-system", value_name = "NAMESPACE")]
    pub operator_namespace: String,
}

/// A failed check.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No cluster is configured.
    #[error("no cluster is configured ({0}); set KUBECONFIG, or run in a pod with a mounted service account token")]
    Config(String),
    /// A permission that the operator must have is missing.
    #[error(transparent)]
    Blind(#[from] Blind),
    /// McpServers cannot be listed.
    #[error(
        "cannot list McpServers in {place}: {source}; install the kinds, and give the account the chart's permissions"
    )]
    Servers {
        /// The namespace, or all namespaces.
        place: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// Keys cannot be created.
    #[error(
        "cannot create Secrets with the keys of authorization servers in {place}; give the account the chart's permissions"
    )]
    Keys {
        /// The namespace, or all namespaces.
        place: String,
    },
    /// The lease cannot be read.
    #[error("cannot read the lease {namespace}/{LEASE}: {source}; give the account the chart's permissions")]
    Lease {
        /// The operator's namespace.
        namespace: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// No replica leads.
    #[error(
        "{holder}, so nothing is reconciled; see kubectl --namespace {namespace} logs deployment/mcp-entra-operator --all-pods"
    )]
    NobodyLeads {
        /// The operator's namespace.
        namespace: String,
        /// The cause, with the holder that does not renew the lease.
        holder: String,
    },
    /// The API server does not answer.
    #[error("the API server did not answer within {} s; check the network, and NetworkPolicies", ANSWER.as_secs())]
    Deadline,
}

/// Runs the checks, and returns a line for each one that succeeds.
///
/// # Errors
/// The first check that fails.
pub async fn check(options: &CheckOptions) -> Result<String, CheckError> {
    let config = Config::infer().await.map_err(|error| CheckError::Config(error.to_string()))?;
    let client = Client::try_from(config).map_err(|error| CheckError::Config(error.to_string()))?;
    within(permissions::check(&client, &options.operator_namespace)).await??;
    let mut told = "all denies and claims can be read\n".to_owned();
    let everywhere = [None];
    let places: Vec<Option<&String>> = match options.watch_namespaces.as_slice() {
        [] => everywhere.into(),
        namespaces => namespaces.iter().map(Some).collect(),
    };
    for namespace in places {
        let place = namespace.map_or("all namespaces".to_owned(), |namespace| format!("namespace {namespace}"));
        let servers: Api<McpServer> = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let seen = within(servers.list_metadata(&ListParams::default().limit(1))).await?;
        seen.map_err(|source| CheckError::Servers { place: place.clone(), source: source.into() })?;
        let _ = writeln!(told, "McpServers can be listed in {place}");
        if !within(permissions::may_make_keys(&client, namespace.map(String::as_str))).await? {
            return Err(CheckError::Keys { place });
        }
        let _ = writeln!(told, "keys of authorization servers can be created in {place}");
    }
    let leader = leader(&client, &options.operator_namespace).await?;
    let _ = writeln!(told, "{leader} leads and renews its lease");
    Ok(told)
}

async fn within<T>(answer: impl Future<Output = T>) -> Result<T, CheckError> {
    tokio::time::timeout(ANSWER, answer).await.map_err(|_| CheckError::Deadline)
}

/// Returns the replica that renewed the lease during the check.
async fn leader(client: &Client, namespace: &str) -> Result<String, CheckError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let (mut first, mut holder) = (None, "no replica leads".to_owned());
    for _ in 0..LEADING.as_secs() / LOOK.as_secs() {
        let lease = within(leases.get_opt(LEASE)).await?;
        let lease =
            lease.map_err(|source| CheckError::Lease { namespace: namespace.to_owned(), source: source.into() })?;
        if let Some(LeaseSpec { holder_identity: Some(name), renew_time: Some(renewed), .. }) =
            lease.and_then(|lease| lease.spec)
        {
            if first.as_ref().is_some_and(|first| *first != renewed) {
                return Ok(name);
            }
            holder = format!("{name} holds the lease but does not renew it");
            first.get_or_insert(renewed);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(CheckError::NobodyLeads { namespace: namespace.to_owned(), holder })
}
