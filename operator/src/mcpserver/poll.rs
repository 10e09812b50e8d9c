//! Step of a reconcile that polls the pods for their policy, and nudges those with an old one.

use std::{collections::BTreeMap, sync::Arc, time::Duration, time::Instant};

use crate::{
    mcpserver::{
        context::Context,
        pass_memory::ServerMemory,
        pod_status::{
            self, PolledPod,
            nudge::nudge,
            reach::{Reach, reach},
        },
    },
    objects::{owner::Owner, views::PodView},
    policy::compile::Compiled,
};

/// The answers of a server's pods.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// All pods, with those that do not run.
    pub(crate) pods: Vec<Arc<PodView>>,
    /// The running pods with their reports.
    pub(crate) polled: Vec<PolledPod>,
    /// The time for which a ready pod has not reported the compiled policy.
    pub(crate) lagging: Option<Duration>,
    /// The time for which a ready pod has not reported whether its credential works.
    pub(crate) probing: Option<Duration>,
    /// The reachability of ports that only the pod's own server should reach, by pod name.
    pub(crate) reach: BTreeMap<String, Reach>,
}

impl Answers {
    /// Returns the ready pods with their reports.
    pub(crate) fn ready(&self) -> impl Iterator<Item = &PolledPod> {
        self.polled.iter().filter(|polled| polled.pod.is_ready())
    }
}

/// Polls the pods. If the policy is written, nudges those that do not report it.
pub(crate) async fn poll(
    owner: &Owner,
    context: &Context,
    memory: &mut ServerMemory,
    compiled: &Compiled,
    policy_is_written: bool,
) -> Answers {
    let pods = context.world.pods_of(owner);
    let polled = pod_status::poll(&context.pods, &context.metrics, pods.clone()).await;
    let now = Instant::now();
    if policy_is_written {
        nudge(&context.client, memory, &polled, compiled.revision(), now).await;
    }
    let is_behind = |polled: &PolledPod| polled.pod.is_ready() && !polled.enforces(compiled.revision());
    let lagging = memory.lagging.note(polled.iter().any(is_behind), now);
    let probing = memory.probing.note(polled.iter().any(is_probing), now);
    // Results through a proxy would only show the proxy's behaviour.
    let reach = match context.options.pod_proxy_url {
        Some(_) => BTreeMap::new(),
        None => reach(&polled).await,
    };
    Answers { pods, polled, lagging, probing, reach }
}

/// Returns true if a ready pod has not reported yet whether its credential works.
fn is_probing(polled: &PolledPod) -> bool {
    polled.pod.is_ready() && !polled.report.as_ref().is_ok_and(|report| report.works.is_some())
}
