//! McpServers that are Ready, as a watch shows them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use mcp_entra_crds::{ConditionType, McpServer};
use tokio_util::task::AbortOnDropHandle;

/// The uids of the servers that are Ready.
pub(super) struct ReadyServers {
    ready: Arc<Mutex<HashSet<String>>>,
    _watch: AbortOnDropHandle<()>,
}

impl ReadyServers {
    pub(super) fn watch(client: &Client) -> Self {
        let ready = Arc::<Mutex<HashSet<String>>>::default();
        let (servers, noted) = (Api::<McpServer>::all(client.clone()), Arc::clone(&ready));
        let watch = watcher(servers, watcher::Config::default()).default_backoff().applied_objects();
        let watch = watch.for_each(move |server| {
            if let Ok(server) = server {
                let (uid, mut ready) =
                    (server.uid().unwrap_or_default(), noted.lock().unwrap_or_else(PoisonError::into_inner));
                if is_ready(&server) {
                    ready.insert(uid)
                } else {
                    ready.remove(&uid)
                };
            }
            std::future::ready(())
        });
        Self { ready, _watch: AbortOnDropHandle::new(tokio::spawn(watch)) }
    }

    pub(super) fn count(&self) -> usize {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn is_ready(server: &McpServer) -> bool {
    let conditions = server.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| {
        condition.type_ == ConditionType::Ready.as_str()
            && condition.status == "True"
            && condition.observed_generation == server.metadata.generation
    })
}
