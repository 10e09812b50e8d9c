//! Probe of a backend. It regularly reads the backend's name, lists and hidden tools for the pod's status.

use std::collections::{BTreeMap, BTreeSet};
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
/// Pause after a change. A backend may report changes all the time.
const AFTER_CHANGE: Duration = Duration::from_secs(1);
/// Pause between probes while the backend does not answer.
const PAUSE_AWAY: Duration = Duration::from_secs(2);
/// Maximum size of the names and digests in the status, in bytes. The operator reads at most twice as many bytes.
const MOST_BYTES: usize = 256 * 1024;
/// Size of an entry without its name, in bytes.
const BYTES_OF_ENTRY: usize = 80;
/// The caller of probes. No real caller has this name.
const PROBE: &str = "";

/// The result of the last probe.
#[derive(Default)]
pub(super) struct Probed(ArcSwap<BackendStatus>);

impl Probed {
    pub(super) fn status(&self) -> BackendStatus {
        BackendStatus::clone(&self.0.load())
    }
}

/// Probes the backend in an endless loop.
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
            Ok((catalogue, peer)) => works(&offer, &[(catalogue, peer)]),
            // The backend answers, but shows its lists only to users. The status has the lists that users have seen.
            Err(BackendError::Unauthorized(_) | BackendError::Forbidden) => shown(&offer),
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

/// Returns the status of a backend that shows its lists only to users. The previous lists remain while no user has
/// asked.
fn shown(offer: &BackendOffer) -> BackendStatus {
    let listed = offer.sessions.listed();
    match listed.first() {
        Some((_, peer)) => {
            offer.describe(peer);
            works(offer, &listed)
        }
        None => BackendStatus { works: Some(true), message: None, ..offer.status() },
    }
}

/// Returns the status of a backend with these lists, which may differ by caller. If a tool has several definitions,
/// the status has the pinned one.
fn works(offer: &BackendOffer, listed: &[(Arc<Catalogue>, Peer)]) -> BackendStatus {
    let mut left = MOST_BYTES;
    let mut fits = |name: &str| {
        left = left.saturating_sub(name.len() + BYTES_OF_ENTRY);
        left > 0
    };
    let mut status = BackendStatus { works: Some(true), ..BackendStatus::default() };
    let mut digests = BTreeMap::<String, (bool, String)>::new();
    for (catalogue, peer) in listed {
        status.name = Some(peer.name.clone());
        status.version = Some(peer.version.clone());
        status.protocol = Some(peer.protocol.clone());
        let Catalogue { tools, prompts, resources, templates } = &**catalogue;
        for tool in tools.iter().filter(|tool| !offer.snapshots.is_pinned(tool)) {
            add(&mut status.hidden, &tool.name, &mut fits);
        }
        for tool in tools {
            let digest = (!offer.snapshots.is_pinned(tool), tool.digest());
            match digests.get_mut(&tool.name) {
                Some(known) if digest < *known => *known = digest,
                None if fits(&tool.name) => drop(digests.insert(tool.name.clone(), digest)),
                Some(_) | None => {}
            }
        }
        prompts.iter().for_each(|prompt| add(&mut status.prompts, &prompt.name, &mut fits));
        resources.iter().chain(templates).for_each(|one| add(&mut status.resources, &one.name, &mut fits));
    }
    status.tools = digests.into_iter().map(|(name, (_, digest))| (name, digest)).collect();
    status
}

fn add(names: &mut BTreeSet<String>, name: &str, fits: &mut impl FnMut(&str) -> bool) {
    if !names.contains(name) && fits(name) {
        names.insert(name.to_owned());
    }
}

fn tell(before: &BackendStatus, now: &BackendStatus) {
    match (&now.message, now.works != before.works) {
        (Some(message), true) => tracing::error!(message, "the backend does not answer"),
        (None, true) => tracing::info!(name = now.name, tools = now.tools.len(), "the backend answers"),
        _ => {}
    }
    if now.hidden != before.hidden && !now.hidden.is_empty() {
        tracing::warn!(tools = ?now.hidden, "these tools differ from the pin, and are not offered");
    }
}
