//! The compiled policy in force, reloaded while the server runs.
//!
//! The file is polled by content: kubelets replace a mounted ConfigMap by swapping symbolic links, which file watches
//! miss. A document that cannot be used changes nothing but the status; the last good one stays in force.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mcp_entra_policy::{Caller, CompiledPolicy, PolicyStatus, revision};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::authorize::{Permissions, PolicyInForce};

/// Time between two looks at the file.
pub const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A ConfigMap holds at most 1 MiB.
const MAXIMUM_BYTES: u64 = 1024 * 1024;

/// The policy file, and the last good policy that it held.
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
    /// A store for this file, with nothing in force yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, state: ArcSwap::default(), changed: watch::Sender::default() }
    }

    /// Permissions of the caller at this moment. Before the first good document, nothing is allowed.
    pub fn permissions(&self, caller: Arc<Caller>) -> Permissions {
        Permissions::new(caller, self.in_force())
    }

    /// Seconds since 1970: sessions of the server's own authorization server that began before this have ended.
    pub fn revoke_sessions_before(&self) -> Option<i64> {
        self.in_force().policy().revoke_sessions_before
    }

    /// Name of the last compromise of the authorization server's keys, if there was one.
    pub fn compromised_keys(&self) -> Option<String> {
        self.in_force().policy().compromised_keys.clone()
    }

    /// The policy in force. Before the first good document, the empty one.
    pub fn in_force(&self) -> Arc<PolicyInForce> {
        self.state.load().in_force.clone().unwrap_or_default()
    }

    /// Changes whenever another policy is in force.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// State for the admin port.
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
                "the policy file {} cannot be read ({error}); the last good policy stays in force until it can",
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
            return Err(std::io::Error::other("it is larger than 1 MiB, which no ConfigMap is"));
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
            tracing::error!(error, "policy not usable");
            self.state.store(Arc::new(State { in_force: current.in_force.clone(), error: Some(error) }));
        }
    }
}
