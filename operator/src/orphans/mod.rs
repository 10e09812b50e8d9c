//! Orphans: objects that outlive their deleted McpServer, with its rights. Within seconds, their policy denies everything
//! and their routes are deleted. Their pods are polled until they report the new policy.
//!
//! [`orphaned`](crate::watch::orphaned) decides what is an orphan, [`schedule`] when it is due; [`mod@revoke`] writes, and
//! [`events`] informs people. The leader runs a loop of rounds. Each round starts work for a limited time, longest
//! waiting first, so that no orphan blocks another.

mod events;
mod revoke;
mod schedule;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use kube::Client;
use mcp_entra_policy::revision;
use tokio::{sync::Notify, time};

use self::{
    events::{EventReason, notice, tell},
    revoke::{Revocation, revoke},
    schedule::{FinalResult, Note},
};
use crate::{
    mcpserver::{
        context::Context,
        pass_memory::Nudged,
        pod_status::{nudge::nudge_one, poll_one},
    },
    objects::{
        child::ChildKind,
        full_name::FullName,
        views::{ChildView, PodView},
    },
    policy::compile::DENY_ALL,
    runtime::{
        errors::{Error, Failures, SOON},
        leader::Leadership,
    },
    watch::orphaned::{Evidence, Suspect, Suspects},
};

/// The longest time between rounds. No event arrives when an McpServer is deleted or a pod starts late.
const TICK: Duration = Duration::from_secs(5);
/// Time in which a round starts work of each kind.
const BEGINNING: Duration = Duration::from_secs(2);
/// The deadline for the writes of one orphan.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most orphans that are revoked at once.
const AT_ONCE: usize = 16;
/// The most pods that are polled at once.
const PODS_AT_ONCE: usize = 64;

/// Returns a function that wakes the loop when a watch shows an orphan.
pub(crate) fn waking(woken: &Arc<Notify>) -> impl FnMut(&Arc<ChildView>) + Send + use<> {
    let woken = woken.clone();
    move |child| {
        if child.labelled && child.controller.is_none() {
            woken.notify_one();
        }
    }
}

/// Runs rounds forever, while this replica leads.
pub(crate) async fn watch_over(context: Arc<Context>, leadership: Leadership, woken: Arc<Notify>) {
    if context.gate.passed().await.is_err() {
        return;
    }
    let mut orphans = Orphans { context, notes: HashMap::new(), failures: Failures::default(), asked: HashMap::new() };
    loop {
        let pause = if leadership.is_held() { orphans.round().await } else { SOON };
        // Each round looks at all cached objects, so limit their rate.
        time::sleep(SOON / 2).await;
        time::timeout(pause, woken.notified()).await.ok();
    }
}

/// Sorts items so that namespaces alternate, and many items of one do not block the others. The order within a
/// namespace stays.
fn in_turns<T>(waiting: Vec<T>, namespace: impl Fn(&T) -> &str) -> Vec<T> {
    let mut before: HashMap<String, usize> = HashMap::new();
    let turn = |item| {
        let count = before.entry(namespace(&item).to_owned()).or_default();
        *count += 1;
        (*count, item)
    };
    let mut turns: Vec<(usize, T)> = waiting.into_iter().map(turn).collect();
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, item)| item).collect()
}

/// The known orphans.
struct Orphans {
    context: Arc<Context>,
    /// Notes by uid of the object.
    notes: HashMap<Box<str>, Note>,
    failures: Failures,
    /// Polls by uid of the pod.
    asked: HashMap<Box<str>, Asked>,
}

/// The last poll of a pod.
#[derive(Debug)]
struct Asked {
    at: Instant,
    /// True if it reports the deny-all policy.
    enforces: bool,
    answered: bool,
    /// The version of the policy for which it was polled.
    version: Option<Box<str>>,
    nudged: Option<Nudged>,
}

/// A pod of an orphan.
#[derive(Clone)]
struct OrphanedPod {
    pod: Arc<PodView>,
    /// The version at which its mounted policy denies everything; none if it does not.
    denied: Option<Box<str>>,
}

/// An attempt to revoke the rights of an orphan.
struct Attempt {
    suspect: Suspect,
    result: Result<Revocation, Error>,
    /// The last published reason.
    told: Option<EventReason>,
}

/// Revokes the rights of one orphan, and publishes the result.
async fn attempt(client: Client, suspect: Suspect, told: Option<EventReason>) -> Attempt {
    let result = time::timeout(DEADLINE, revoke(&client, &suspect)).await;
    let result = result.unwrap_or(Err(Error::Deadline(DEADLINE)));
    let notice = notice(&suspect, &result);
    if let Some(notice) = notice.as_ref().filter(|notice| told != Some(notice.reason)) {
        tell(&client, &suspect, notice).await;
    }
    Attempt { suspect, result, told: notice.map(|notice| notice.reason).or(told) }
}

/// Polls one pod for its policy, and nudges it. Returns its uid with the answer.
async fn ask(context: Arc<Context>, orphaned: OrphanedPod, last: Option<Nudged>) -> (Box<str>, Asked) {
    let (revision, at) = (revision(DENY_ALL.as_bytes()), Instant::now());
    let polled = poll_one(&context.pods, &context.metrics, orphaned.pod).await;
    let nudged = match orphaned.denied {
        Some(_) => nudge_one(&context.client, &polled, last.as_ref(), &revision, at).await,
        None => None,
    };
    let (enforces, answered) = (polled.enforces(&revision), polled.report.is_ok());
    (polled.pod.uid.clone(), Asked { at, enforces, answered, version: orphaned.denied, nudged: nudged.or(last) })
}

/// Revokes the rights of these orphans, as many as can be started in time.
async fn attempt_all(client: Client, due: Vec<(Suspect, Option<EventReason>)>) -> Vec<Attempt> {
    stream::iter(due)
        .take_until(time::sleep(BEGINNING))
        .map(move |(suspect, told)| attempt(client.clone(), suspect, told))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

/// Polls these pods, as many as can be started in time.
async fn ask_all(context: Arc<Context>, due: Vec<(OrphanedPod, Option<Nudged>)>) -> Vec<(Box<str>, Asked)> {
    stream::iter(due)
        .take_until(time::sleep(BEGINNING))
        .map(move |(orphaned, last)| ask(context.clone(), orphaned, last))
        .buffer_unordered(PODS_AT_ONCE)
        .collect()
        .await
}

impl Orphans {
    /// Runs one round. Returns the pause until the next one.
    async fn round(&mut self) -> Duration {
        let seen = Suspects::of(&self.context.world);
        self.forget(&seen);
        let due = self.due(&seen, Instant::now());
        for attempt in attempt_all(self.context.client.clone(), due).await {
            self.conclude(attempt, Instant::now());
        }
        let pods = self.pods(&seen);
        let due = self.due_pods(&pods, Instant::now());
        self.asked.extend(ask_all(self.context.clone(), due).await);
        self.pause(&seen, &pods)
    }

    /// Forgets objects that are no longer orphans.
    fn forget(&mut self, seen: &Suspects) {
        let uids: HashSet<&str> = seen.suspects.iter().map(|suspect| &*suspect.object.uid).collect();
        self.notes.retain(|uid, _| uids.contains(&**uid));
        self.failures.retain(|uid| uids.contains(uid));
    }

    /// Returns the orphans that may still have rights, longest waiting first, each with its last published reason.
    fn due(&mut self, seen: &Suspects, now: Instant) -> Vec<(Suspect, Option<EventReason>)> {
        let mut due = Vec::new();
        for suspect in &seen.suspects {
            let note = self.notes.entry(suspect.object.uid.clone()).or_default();
            if note.is_due(suspect, now) {
                due.push((note.tried, note.told, suspect.clone()));
            }
        }
        due.sort_by_key(|(tried, ..)| *tried);
        let due = in_turns(due, |(.., suspect)| suspect.object.full_name.namespace());
        due.into_iter().map(|(_, told, suspect)| (suspect, told)).collect()
    }

    /// Records the result of an attempt.
    fn conclude(&mut self, attempt: Attempt, now: Instant) {
        let Attempt { suspect, result, told } = attempt;
        let uid = &suspect.object.uid;
        let note = self.notes.entry(uid.clone()).or_default();
        (note.tried, note.told, note.retry_at, note.settled) = (Some(now), told, None, None);
        match result {
            Ok(outcome) => {
                self.failures.take(uid);
                match outcome {
                    Revocation::Denied(version) => {
                        note.settled = Some(FinalResult { version: version.into(), denied: true })
                    }
                    Revocation::Immutable(version) => {
                        note.settled = Some(FinalResult { version: version.into(), denied: false });
                    }
                    Revocation::ControllerLives => note.controller_lives(now),
                    Revocation::Deleted | Revocation::Changed => {}
                }
            }
            Err(error) => {
                let pause = self.failures.next_pause(uid, error.class());
                tracing::warn!(
                    namespace = suspect.object.full_name.namespace(), %error, again_in_seconds = pause.as_secs(),
                    "cannot revoke the rights of an orphan yet"
                );
                note.retry_at = Some(now + pause);
            }
        }
    }

    /// Returns the pods to poll now, longest waiting first, each with its last nudge.
    fn due_pods(&mut self, pods: &[OrphanedPod], now: Instant) -> Vec<(OrphanedPod, Option<Nudged>)> {
        let uids: HashSet<&str> = pods.iter().map(|orphaned| &*orphaned.pod.uid).collect();
        self.asked.retain(|uid, _| uids.contains(&**uid));
        let poll = self.context.options.status_poll();
        let before = |orphaned: &OrphanedPod| self.asked.get(&orphaned.pod.uid);
        let is_due = |pod: &OrphanedPod, asked: &Asked| {
            asked.is_lagging() || asked.version != pod.denied || now.duration_since(asked.at) >= poll
        };
        let is_due = |pod: &&OrphanedPod| before(pod).is_none_or(|asked| is_due(pod, asked));
        let mut due: Vec<&OrphanedPod> = pods.iter().filter(is_due).collect();
        due.sort_by_key(|orphaned| before(orphaned).map(|asked| asked.at));
        let due = in_turns(due, |orphaned| orphaned.pod.full_name.namespace());
        due.into_iter().map(|pod| (pod.clone(), before(pod).and_then(|asked| asked.nudged.clone()))).collect()
    }

    /// Counts the pods that may still enforce their old policy. Returns the pause until the next round.
    fn pause(&self, seen: &Suspects, pods: &[OrphanedPod]) -> Duration {
        let asked: Vec<_> = pods.iter().map(|orphaned| self.asked.get(&orphaned.pod.uid)).collect();
        let behind = asked.iter().filter(|asked| asked.is_none_or(|asked| !asked.enforces)).count();
        self.context.metrics.orphaned_pods(behind);
        let is_open = |suspect: &Suspect| {
            let note = self.notes.get(&suspect.object.uid);
            suspect.evidence == Evidence::NoController && note.is_none_or(|note| note.settled.is_none())
        };
        let is_lagging = asked.iter().any(|asked| asked.is_none_or(Asked::is_lagging));
        let poll = self.context.options.status_poll();
        if is_lagging || seen.suspects.iter().any(is_open) { SOON } else { poll.min(TICK) }
    }

    /// Returns the running pods of orphans.
    fn pods(&self, seen: &Suspects) -> Vec<OrphanedPod> {
        let policies = seen.suspects.iter().filter(|suspect| suspect.kind == ChildKind::Policy);
        let certain = policies.filter_map(|suspect| {
            let note = self.notes.get(&suspect.object.uid)?;
            note.is_certain(suspect).then(|| (&suspect.object.full_name, note.denied()))
        });
        let denied: HashMap<&FullName, Option<&str>> = certain.collect();
        if denied.is_empty() {
            return Vec::new();
        }
        let denied_of = |pod: &PodView| denied.get(&seen.policy_of(pod)?).copied();
        let pods = self.context.world.pods.filter(|pod| denied_of(pod).is_some());
        let orphaned = |pod: Arc<PodView>| Some(OrphanedPod { denied: denied_of(&pod)?.map(Box::from), pod });
        pods.into_iter().filter_map(orphaned).collect()
    }
}

impl Asked {
    /// Returns true if the pod answers with another policy. A pod without an answer is not polled again so soon.
    fn is_lagging(&self) -> bool {
        self.answered && !self.enforces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_take_turns_and_keep_their_order() {
        let waiting = vec!["a1", "a2", "a3", "b1", "a4", "c1", "b2"];
        assert_eq!(in_turns(waiting, |item| &item[..1]), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
    }
}
