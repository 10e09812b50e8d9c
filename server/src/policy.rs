//! The compiled policy in force. It is reloaded while the server runs.
//!
//! The server polls the content of the file. Kubelets replace a mounted ConfigMap by swapping symbolic links, which
//! file watches miss. An unusable document changes only the status; the last good one stays in force.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mcp_entra_policy::{Caller, CompiledPolicy, PolicyStatus, revision};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::authorize::{Permissions, PolicyInForce};

/// Time between two reads of the file.
pub const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Largest policy document, in bytes: the limit of a ConfigMap.
const MAXIMUM_BYTES: u64 = 1024 * 1024;

/// The policy file and the last good policy from it.
pub struct PolicyStore {
    path: PathBuf,
    state: ArcSwap<State>,
    changed: watch::Sender<()>,
}

/// The policy in force, and the reason why it is not the newest document.
#[derive(Default)]
struct State {
    in_force: Option<Arc<PolicyInForce>>,
    error: Option<String>,
}

impl PolicyStore {
    /// Returns a store for this file, without a policy.
    pub fn new(path: PathBuf) -> Self {
        Self { path, state: ArcSwap::default(), changed: watch::Sender::default() }
    }

    /// Returns the caller's permissions now. Before the first good document, nothing is allowed.
    pub fn permissions(&self, caller: Arc<Caller>) -> Permissions {
        Permissions::new(caller, self.in_force())
    }

    /// Time (seconds since 1970) before which sessions of the authorization server are revoked.
    pub fn revoke_sessions_before(&self) -> Option<i64> {
        self.in_force().policy().revoke_sessions_before
    }

    /// Returns the name of the last compromise of the authorization server's keys, if there was one.
    pub fn compromised_keys(&self) -> Option<String> {
        self.in_force().policy().compromised_keys.clone()
    }

    /// Returns the policy in force. Before the first good document, it is empty.
    pub fn in_force(&self) -> Arc<PolicyInForce> {
        self.state.load().in_force.clone().unwrap_or_default()
    }

    /// Notifies of every change of the policy in force.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns the status for the admin port.
    pub fn status(&self) -> PolicyStatus {
        let state = self.state.load();
        PolicyStatus {
            revision: state.in_force.as_ref().map(|policy| policy.revision().to_owned()),
            error: state.error.clone(),
        }
    }

    /// Reads the file once.
    pub async fn reload(&self) {
        match self.read().await {
            Ok(document) => self.adopt(&document),
            Err(error) => self.report(format!(
                "the policy file {} cannot be read ({error}); the last good policy stays in force meanwhile",
                self.path.display()
            )),
        }
    }

    /// Reads the file every [`POLL_INTERVAL`] until cancelled.
    pub async fn watch(self: Arc<Self>, cancellation: CancellationToken) {
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while cancellation.run_until_cancelled(interval.tick()).await.is_some() {
            self.reload().await;
        }
    }

    async fn read(&self) -> std::io::Result<Vec<u8>> {
        let mut document = Vec::new();
        let file = tokio::fs::File::open(&self.path).await?;
        file.take(MAXIMUM_BYTES + 1).read_to_end(&mut document).await?;
        if document.len() as u64 > MAXIMUM_BYTES {
            return Err(std::io::Error::other("it is larger than 1 MiB, the limit of a ConfigMap"));
        }
        Ok(document)
    }

    fn adopt(&self, document: &[u8]) {
        let revision = revision(document);
        let current = self.state.load();
        if current.error.is_none() && current.in_force.as_ref().is_some_and(|policy| policy.revision() == revision) {
            return;
        }
        match CompiledPolicy::parse(document) {
            Ok(policy) => {
                tracing::info!(revision, denies = policy.denies.len(), grants = policy.grants.len(), "policy in force");
                let in_force = Some(Arc::new(PolicyInForce::new(policy, revision)));
                self.state.store(Arc::new(State { in_force, error: None }));
                self.changed.send_replace(());
            }
            Err(error) => self.report(error.to_string()),
        }
    }

    fn report(&self, error: String) {
        let current = self.state.load();
        if current.error.as_ref() != Some(&error) {
            tracing::error!(error, "cannot use the policy file");
            self.state.store(Arc::new(State { in_force: current.in_force.clone(), error: Some(error) }));
        }
    }
}
