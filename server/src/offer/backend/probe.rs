//! The probe of a backend: its name, what it has and what of it is hidden, looked at again and again for the pod's status.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mcp_entra_policy::BackendStatus;
use tokio::time::{sleep, timeout};

use super::BackendOffer;
use crate::backend::{BackendError, Catalogue, Identity, Peer};
use crate::listeners;

/// Pause between probes while the backend answers.
const PAUSE: Duration = Duration::from_secs(15);
/// Pause after a change: a backend may tell of them all the time.
const AFTER_CHANGE: Duration = Duration::from_secs(1);
/// Pause while it does not.
const PAUSE_AWAY: Duration = Duration::from_secs(2);
/// Bytes of names and digests that the status tells: the operator reads no more than twice as many.
const MOST_BYTES: usize = 256 * 1024;
/// Bytes of an entry besides its name.
const BYTES_OF_ENTRY: usize = 80;
/// The caller of probes. No caller of ours has this name.
const PROBE: &str = "";

/// The result of the last probe.
#[derive(Default)]
pub(super) struct Probed(ArcSwap<BackendStatus>);

impl Probed {
    pub(super) fn status(&self) -> BackendStatus {
        BackendStatus::clone(&self.0.load())
    }
}

/// Probes for ever.
pub(super) async fn run(offer: Arc<BackendOffer>) {
    let mut changes = offer.changes.listen();
    loop {
        let probed = offer.sessions.new_catalogue(PROBE, &Identity::Nothing).await;
        let pause = if probed.is_ok() { PAUSE } else { PAUSE_AWAY };
        if let Ok((_, peer)) = &probed {
            offer.describe(peer);
        }
        let listens = listeners::foreign(offer.own.clone()).await;
        let status = match probed {
            Ok((catalogue, peer)) => works(&offer, &catalogue, peer),
            // It answers, and tells nothing to nobody.
            Err(BackendError::Unauthorized(_) | BackendError::Forbidden) => {
                BackendStatus { works: Some(true), ..offer.status() }
            }
            Err(error) => BackendStatus { works: Some(false), message: Some(error.to_string()), ..offer.status() },
        };
        let status = BackendStatus { listens, ..status };
        tell(&offer.status(), &status);
        offer.probed.0.store(Arc::new(status));
        let changed = async {
            match &mut changes {
                Some(changes) => drop(changes.recv().await),
                None => std::future::pending().await,
            }
        };
        _ = timeout(pause, changed).await;
        sleep(AFTER_CHANGE).await;
    }
}

fn works(offer: &BackendOffer, catalogue: &Catalogue, peer: Peer) -> BackendStatus {
    let Catalogue { tools, prompts, resources, templates } = catalogue;
    let hidden = tools.iter().filter(|tool| !offer.snapshots.is_pinned(tool));
    let mut left = MOST_BYTES;
    let mut fits = |name: &&str| {
        left = left.saturating_sub(name.len() + BYTES_OF_ENTRY);
        left > 0
    };
    let hidden = Vec::from_iter(hidden.map(|tool| tool.name.as_str()).take_while(&mut fits));
    let tools = Vec::from_iter(tools.iter().take_while(|tool| fits(&tool.name.as_str())));
    let prompts = Vec::from_iter(prompts.iter().map(|prompt| prompt.name.as_str()).take_while(&mut fits));
    let resources = resources.iter().chain(templates).map(|resource| resource.name.as_str());
    let resources = Vec::from_iter(resources.take_while(&mut fits));
    BackendStatus {
        works: Some(true),
        message: None,
        name: Some(peer.name),
        version: Some(peer.version),
        protocol: Some(peer.protocol),
        hidden: owned(hidden),
        tools: tools.iter().map(|tool| (tool.name.clone(), tool.digest())).collect(),
        prompts: owned(prompts),
        resources: owned(resources),
        ..BackendStatus::default()
    }
}

fn owned(names: Vec<&str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

fn tell(before: &BackendStatus, now: &BackendStatus) {
    match (&now.message, now.works != before.works) {
        (Some(message), true) => tracing::error!(message, "the backend does not answer"),
        (None, true) => tracing::info!(name = now.name, tools = now.tools.len(), "the backend answers"),
        _ => {}
    }
    if now.hidden != before.hidden && !now.hidden.is_empty() {
        tracing::warn!(tools = ?now.hidden, "these tools are not as the pin has them, and are not offered");
    }
}
