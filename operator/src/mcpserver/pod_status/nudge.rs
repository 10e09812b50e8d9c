//! Nudges of pods with an old policy: a write to the pod makes its kubelet read the ConfigMap again.

use std::time::{Duration, Instant};

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    MANAGER,
    mcpserver::{
        pass_memory::{Nudged, ServerMemory},
        pod_status::PolledPod,
    },
    objects::{names::POLICY_REVISION, views::Labelled, watched::WatchedPod},
    runtime::errors::code,
};

/// The pause between the first two nudges of a pod for one policy: the kubelet's cache may have been outdated. Each
/// further pause is twice as long, up to [`LONGEST_NUDGE_PAUSES`] doublings.
const NUDGE_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_NUDGE_PAUSES: u32 = 5;
/// The number of nudges after which the count restarts.
const MOST_NUDGES: u64 = 1_000_000;

/// Nudges pods with an old policy: those that are ready, and those that serve another policy without being ready.
pub(crate) async fn nudge(
    client: &Client,
    memory: &mut ServerMemory,
    pods: &[PolledPod],
    revision: &str,
    now: Instant,
) {
    memory.nudged.retain(|uid, _| pods.iter().any(|polled| *polled.pod.uid == **uid));
    let serves = |polled: &&PolledPod| {
        polled.pod.is_ready() || polled.report.as_ref().is_ok_and(|report| report.revision.is_some())
    };
    for polled in pods.iter().filter(serves) {
        let last = memory.nudged.get(&*polled.pod.uid);
        if let Some(nudged) = nudge_one(client, polled, last, revision, now).await {
            memory.nudged.insert(polled.pod.uid.to_string(), nudged);
        }
    }
}

/// Nudges a pod with an old policy: at once for a new policy, with growing pauses for the same one. It restarts
/// nothing, and skips a pod that enforces the policy. Returns the nudge, if there was one.
pub(crate) async fn nudge_one(
    client: &Client,
    polled: &PolledPod,
    last: Option<&Nudged>,
    revision: &str,
    now: Instant,
) -> Option<Nudged> {
    let before = polled.pod.policy_revision.as_deref();
    let count = before.and_then(|value| counts(value, revision));
    // A pod without an answer gets one nudge per revision, to avoid endless writes.
    let asked = polled.report.is_ok() || count.is_none();
    if polled.enforces(revision) || !asked || !is_due(last, revision, count, now) {
        return None;
    }
    let patch = json!({"metadata": {"annotations": {POLICY_REVISION: next_value(before, revision)}}});
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let (namespace, name) = (polled.pod.full_name.namespace(), polled.pod.name());
    let api = Api::<WatchedPod>::namespaced(client.clone(), namespace);
    match api.patch(name, &parameters, &Patch::Merge(&patch)).await {
        Ok(_) => {
            tracing::info!(
                server = polled.pod.server(),
                namespace,
                pod = name,
                revision,
                "nudged a pod with an old policy"
            );
            Some(Nudged { revision: revision.to_owned(), at: now })
        }
        Err(error) if code(&error) == Some(404) => None,
        Err(error) => {
            tracing::warn!(namespace, pod = name, %error, "cannot nudge a pod; its kubelet updates the policy later");
            None
        }
    }
}

fn is_due(last: Option<&Nudged>, revision: &str, count: Option<u64>, now: Instant) -> bool {
    let Some(last) = last.filter(|last| last.revision == revision) else { return true };
    let doublings = u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX).min(LONGEST_NUDGE_PAUSES);
    now.duration_since(last.at) >= NUDGE_PAUSE * 2_u32.pow(doublings)
}

/// Returns the number of nudges of a pod for a revision, if there were any.
fn counts(value: &str, revision: &str) -> Option<u64> {
    match value.strip_prefix(revision)? {
        "" => Some(0),
        rest => rest.strip_prefix('.')?.parse().ok(),
    }
}

/// Returns a new value for the annotation, because only a change triggers the kubelet.
fn next_value(before: Option<&str>, revision: &str) -> String {
    match before.and_then(|value| counts(value, revision)) {
        None => revision.to_owned(),
        // Anybody with write access to pods can write any number.
        Some(count) => format!("{revision}.{}", count % MOST_NUDGES + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nudge_has_a_value_that_was_not_there() {
        assert_eq!(next_value(None, "abc"), "abc");
        assert_eq!(next_value(Some("abc"), "abc"), "abc.1");
        assert_eq!(next_value(Some("abc.9"), "abc"), "abc.10");
        assert_eq!(next_value(Some("abd.9"), "abc"), "abc");
        assert_eq!(next_value(Some("abcd"), "abc"), "abc");
        let last = format!("abc.{}", u64::MAX);
        assert_ne!(next_value(Some(&last), "abc"), last, "the count was changed by others");
    }

    #[test]
    fn a_new_policy_is_nudged_at_once_and_the_same_one_with_growing_pauses() {
        let start = Instant::now();
        let last = Nudged { revision: "abc".into(), at: start };
        let due = |revision: &str, count: u64, seconds: u64| {
            is_due(Some(&last), revision, Some(count), start + Duration::from_secs(seconds))
        };
        assert!(is_due(None, "abc", None, start));
        assert!(due("abd", 0, 0));
        assert!(!due("abc", 0, 1) && due("abc", 0, 2));
        assert!(!due("abc", 2, 7) && due("abc", 2, 8));
        assert!(!due("abc", 99, 63) && due("abc", 99, 64));
    }
}
