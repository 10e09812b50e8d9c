//! Lifecycle of one pod on the node, from its first sight to its deletion. It is one task, and errors of other pods do
//! not end it.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::{Event, Recorder, Reporter as EventSource};
use kube::{Api, Resource, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::claim::Claim;
use super::container::{Stop, seconds, unless_stopped};
use super::order;
use super::state::{ContainerState, PodState};
use super::status::{self, Conditions, Run};
use super::volumes::Volumes;
use super::{NodeContext, Severity, request};

/// Delay between attempts of failed requests to the API server.
const RETRY: Duration = Duration::from_secs(1);
/// Minimum and maximum delay between attempts to make the volumes.
const MOUNT_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// Time for a pod's processes to end when the pod is gone, or the node stops.
const FORCED_GRACE: Duration = Duration::from_secs(1);
const DEFAULT_GRACE: i64 = 30;

/// Ends the pod's processes, each within this time.
pub(super) type End = watch::Sender<Option<Duration>>;

/// Pod as in the API server. The channel closes when the pod is gone from there.
pub(super) type Updates = watch::Receiver<Arc<Pod>>;

/// Shared state of one pod.
pub(super) struct PodContext {
    pub(super) node: Arc<NodeContext>,
    /// Pod at its first sight. Its spec does not change.
    pub(super) pod: Arc<Pod>,
    pub(super) address: Claim,
    since: Timestamp,
    state: watch::Sender<PodState>,
    stop: End,
    said: Mutex<BTreeMap<&'static str, String>>,
}

/// Runs the pod until it is gone from the API server or the node stops.
pub(super) async fn run(node: Arc<NodeContext>, updates: Updates, shutdown: CancellationToken) {
    let pod = Arc::clone(&updates.borrow());
    if !is_over(&pod) {
        match PodContext::new(Arc::clone(&node), Arc::clone(&pod)) {
            Ok(context) => context.live(&updates, &shutdown).await,
            Err(error) => tracing::error!(pod = pod.name_any(), "cannot be run: {error:#}"),
        }
    }
    let removal = async {
        let is_deleted = |pod: &Arc<Pod>| pod.metadata.deletion_timestamp.is_some();
        if updates.clone().wait_for(is_deleted).await.is_ok() {
            remove(&node, &pod).await;
        }
    };
    while_needed(&updates, &shutdown, removal).await;
}

/// Runs the work until the pod is gone from the API server, or the node stops.
async fn while_needed(updates: &Updates, shutdown: &CancellationToken, work: impl Future<Output = ()>) {
    let mut updates = updates.clone();
    let gone = async { while updates.changed().await.is_ok() {} };
    tokio::select! {
        biased;
        () = gone => {}
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

/// Returns whether nothing must be run for the pod, as after a restart of the node.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
}

/// Deletes the pod from the API server, after the end of all its processes.
async fn remove(node: &NodeContext, pod: &Pod) {
    let pods = Api::<Pod>::namespaced(node.client.clone(), &pod.namespace().unwrap_or_default());
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    while let Err(error) = request(pods.delete(&pod.name_any(), &parameters)).await {
        if is_gone(&error) {
            break;
        }
        tracing::warn!(pod = pod.name_any(), "cannot be deleted: {error:#}");
        sleep(RETRY).await;
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404)
}

impl PodContext {
    fn new(node: Arc<NodeContext>, pod: Arc<Pod>) -> anyhow::Result<Self> {
        let spec = pod.spec.as_ref();
        let state = spec.map(PodState::new).unwrap_or_default();
        Ok(Self {
            address: Claim::take()?,
            since: Timestamp::now(),
            state: watch::Sender::new(state),
            stop: watch::Sender::new(None),
            said: Mutex::default(),
            node,
            pod,
        })
    }

    pub(super) fn namespace(&self) -> String {
        self.pod.namespace().unwrap_or_default()
    }

    pub(super) fn uid(&self) -> String {
        self.pod.uid().unwrap_or_default()
    }

    /// Folder, named by the first characters of the uid: the path of a Unix socket in a volume is short.
    fn folder(&self) -> PathBuf {
        let uid = self.uid();
        self.node.folder.join("pods").join(uid.split('-').next().unwrap_or_default())
    }

    pub(super) fn volumes_folder(&self) -> PathBuf {
        self.folder().join("volumes")
    }

    /// Path of the log of the container's next run.
    pub(super) fn next_log(&self, container: &str) -> PathBuf {
        let restarts = self.state.borrow().container(container).map_or(0, |state| state.restarts);
        self.node.logs.file(&self.pod, container, restarts)
    }

    /// Time for the pod's processes to end.
    pub(super) fn grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref();
        seconds(spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE))
    }

    pub(super) fn stop(&self) -> Stop {
        self.stop.subscribe()
    }

    /// Returns whether the condition holds for a container now.
    pub(super) fn is(&self, container: &str, holds: impl Fn(&ContainerState) -> bool) -> bool {
        self.state.borrow().container(container).is_some_and(holds)
    }

    /// Waits until the condition holds for a container.
    pub(super) async fn until(&self, container: &str, holds: impl Fn(&ContainerState) -> bool) {
        let mut state = self.state.subscribe();
        let now = state.wait_for(|state| state.container(container).is_some_and(&holds));
        if now.await.is_err() {
            pending().await
        }
    }

    /// Changes the state of a container.
    pub(super) fn update(&self, container: &str, change: impl FnOnce(&mut ContainerState)) {
        self.state.send_if_modified(|state| {
            let Some(state) = state.container_mut(container) else {
                return false;
            };
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    /// Publishes an event about the pod, unless it repeats the last one of its reason.
    pub(super) fn event(&self, severity: Severity, reason: &'static str, note: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.insert(reason, note.clone()).as_ref() == Some(&note) {
            return;
        }
        let source = EventSource { controller: "kubelet".to_owned(), instance: Some(self.node.name.clone()) };
        // A recorder keeps the first note of each reason. Therefore each event gets its own recorder.
        let recorder = Recorder::new(self.node.client.clone(), source);
        let pod = self.pod.object_ref(&());
        let event = Event {
            type_: severity,
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: reason.to_owned(),
            secondary: None,
        };
        tokio::spawn(async move {
            if let Err(error) = request(recorder.publish(&event, &pod)).await {
                tracing::debug!(reason, "an event was lost: {error:#}");
            }
        });
    }

    /// Runs the pod's containers until all of them have ended for good.
    async fn live(&self, updates: &Updates, shutdown: &CancellationToken) {
        let mut reporter = Reporter::default();
        let name = (self.namespace(), self.pod.name_any());
        self.node.ends.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), self.stop.clone());
        tokio::select! {
            () = self.run_containers() => {}
            () = self.keep_volumes(updates.clone()) => {}
            () = self.heed_end(updates.clone(), shutdown) => {}
            () = reporter.run(self, updates.clone()) => {}
        }
        self.node.ends.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        let last = async {
            while let Err(error) = reporter.report(self, updates).await {
                tracing::warn!(pod = self.pod.name_any(), "its last status is not written: {error:#}");
                sleep(RETRY).await;
            }
        };
        while_needed(updates, shutdown, last).await;
        if let Err(error) = std::fs::remove_dir_all(self.folder()) {
            tracing::debug!("a pod's folder is not removed: {error}");
        }
    }

    async fn run_containers(&self) {
        let stop = self.stop();
        let mut state = self.state.subscribe();
        let prepared = state.wait_for(|state| state.prepared);
        let Some(spec) = self.pod.spec.as_ref() else {
            return;
        };
        if unless_stopped(&stop, prepared).await.is_none() {
            return;
        }
        order::run(self, spec).await;
    }

    /// Updates the volumes repeatedly: after the node's period, after a change of the pod, and when a token expires.
    async fn keep_volumes(&self, mut updates: Updates) {
        let client = self.node.client.clone();
        let mut volumes = Volumes::new(client, self.volumes_folder(), self.address.listening());
        let (first_retry, last_retry) = MOUNT_RETRY;
        let mut retry = first_retry;
        loop {
            let pod = Arc::clone(&updates.borrow_and_update());
            let wait = match volumes.sync(&pod).await {
                Ok(()) => {
                    retry = first_retry;
                    self.state.send_if_modified(|state| !std::mem::replace(&mut state.prepared, true));
                    let period = rand::random_range(self.node.settings.volume_refresh.clone());
                    volumes.next_renewal().map_or(period, |due| period.min(until(due)))
                }
                Err(error) => {
                    self.event(Severity::Warning, "FailedMount", format!("{error:#}"));
                    let wait = retry;
                    retry = (retry * 2).min(last_retry);
                    wait
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = touched(&mut updates, &pod) => {}
            }
        }
    }

    /// Stops the containers when the pod is deleted or gone, or the node stops. It never returns.
    async fn heed_end(&self, mut updates: Updates, shutdown: &CancellationToken) {
        loop {
            {
                let meta = &updates.borrow_and_update().metadata;
                if meta.deletion_timestamp.is_some() {
                    let grace = meta.deletion_grace_period_seconds.map_or(self.grace(), seconds);
                    self.stop_within(grace.max(FORCED_GRACE));
                }
            }
            tokio::select! {
                changed = updates.changed() => if changed.is_err() { break },
                () = shutdown.cancelled() => break,
            }
        }
        self.stop_within(FORCED_GRACE);
        pending().await
    }

    fn stop_within(&self, grace: Duration) {
        self.state.send_if_modified(|state| !std::mem::replace(&mut state.terminating, true));
        self.stop.send_if_modified(|stop| {
            let sooner = stop.is_none_or(|known| grace < known);
            if sooner {
                *stop = Some(grace);
            }
            sooner
        });
    }
}

/// Returns the time until this moment, with a minimum, so that no loop spins.
fn until(due: Timestamp) -> Duration {
    let left = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
    left.max(RETRY)
}

/// Waits for a change of the pod that a kubelet acts on, which excludes its status.
async fn touched(updates: &mut Updates, before: &Pod) {
    let differs = |now: &Arc<Pod>| {
        now.spec != before.spec || now.labels() != before.labels() || now.annotations() != before.annotations()
    };
    if updates.wait_for(differs).await.is_err() {
        pending().await
    }
}

/// Writes the pod's status after each change.
#[derive(Default)]
struct Reporter {
    conditions: Conditions,
    written: Option<Value>,
}

impl Reporter {
    async fn run(&mut self, context: &PodContext, mut updates: Updates) {
        let mut state = context.state.subscribe();
        loop {
            state.mark_unchanged();
            updates.mark_unchanged();
            if let Err(error) = self.report(context, &updates).await {
                tracing::warn!(pod = context.pod.name_any(), "its status is not written: {error:#}");
                sleep(RETRY).await;
                continue;
            }
            tokio::select! {
                _ = state.changed() => {}
                // The readiness gates may have changed.
                changed = updates.changed() => if changed.is_err() { pending().await },
            }
        }
    }

    async fn report(&mut self, context: &PodContext, updates: &Updates) -> anyhow::Result<()> {
        let pod = Arc::clone(&updates.borrow());
        let state = context.state.borrow().clone();
        let run = Run { address: context.address.announced(), since: context.since };
        let patch = status::patch(&pod, &state, run, &mut self.conditions, Timestamp::now());
        if self.written.as_ref() == Some(&patch) {
            return Ok(());
        }
        let pods = Api::<Pod>::namespaced(context.node.client.clone(), &context.namespace());
        let (name, parameters) = (pod.name_any(), PatchParams::default());
        match request(pods.patch_status(&name, &parameters, &Patch::Strategic(&patch))).await {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => self.written = Some(patch),
        }
        Ok(())
    }
}
