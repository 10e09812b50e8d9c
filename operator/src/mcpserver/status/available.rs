//! Condition Available: enough pods are ready, or the cause and the next step. Pure.

use std::sync::Arc;

use crate::{
    conditions::{
        condition::{Reason, Verdict},
        pod_trouble::{refused, trouble},
    },
    mcpserver::pod_status::PolledPod,
    objects::{
        status_views::ConditionView,
        views::{ChildView, PodView},
    },
};

/// The facts that Available depends on.
#[derive(Clone, Copy)]
pub(crate) struct PodFacts<'a> {
    pub(crate) namespace: &'a str,
    /// The desired number of pods. With an autoscaler it is the last number that it set.
    pub(crate) wanted: i32,
    /// A smaller number of ready pods that is enough. With an autoscaler it is the minimum: pods that it adds are no
    /// outage until they are ready.
    pub(crate) enough: i32,
    pub(crate) deployment: Option<&'a ChildView>,
    /// The autoscaler that sets the number of pods, if the spec has one.
    pub(crate) autoscaler: Option<&'a ChildView>,
    /// True if others set the number of pods, because the spec does not.
    pub(crate) is_external: bool,
    /// True if the Deployment was applied and the watch has not shown it since.
    pub(crate) is_stale: bool,
    pub(crate) pods: &'a [Arc<PodView>],
    pub(crate) polled: &'a [PolledPod],
}

/// Returns the verdict that enough pods of the newest spec, and no others, are ready.
pub(crate) fn availability(facts: PodFacts<'_>) -> Verdict {
    let PodFacts { namespace, wanted, deployment, autoscaler, is_external, is_stale, pods, polled, .. } = facts;
    let enough = facts.enough.min(wanted);
    if wanted == 0 && autoscaler.is_some() {
        return Verdict::no(
            Reason::ScaledToZero,
            format!(
                "no pod is wanted: the Deployment was scaled to 0, and its autoscaler keeps it there; start one with kubectl -n {namespace} scale deployment {} --replicas=1",
                deployment.map(ChildView::name).unwrap_or_default()
            ),
        );
    }
    if wanted == 0 && is_external {
        return Verdict::no(
            Reason::ScaledToZero,
            format!(
                "no pod is wanted: the Deployment was scaled to 0; start one with kubectl -n {namespace} scale deployment {} --replicas=1, or set spec.replicas",
                deployment.map(ChildView::name).unwrap_or_default()
            ),
        );
    }
    if wanted == 0 {
        return Verdict::no(
            Reason::ScaledToZero,
            "no pod is wanted: spec.replicas is 0; set it to 1 or more to serve requests",
        );
    }
    let Some(deployment) = deployment else {
        return Verdict::no(
            Reason::Progressing,
            "there is no Deployment yet; see the condition Programmed for the cause",
        );
    };
    let status = deployment.status();
    let ready = status.ready_replicas;
    // An autoscaler changes only the number.
    let is_scaled = (autoscaler.is_some() || is_external) && deployment.is_scaling();
    let is_observed = deployment.is_observed() || is_scaled;
    if ready >= enough && !is_stale && is_observed && deployment.is_rolled_out(enough) {
        let idle = autoscaler.and_then(|autoscaler| idle(namespace, autoscaler)).unwrap_or_default();
        return Verdict::yes(Reason::PodsReady, format!("{ready} of {wanted} pods are ready{idle}"));
    }
    let trouble = refused(deployment)
        .or_else(|| pods.iter().find_map(|pod| trouble(pod)))
        .or_else(|| polled.iter().find_map(own_words));
    if deployment.paused && (ready >= enough || trouble.is_none()) {
        let resume = resume(namespace, deployment.name());
        return Verdict::no(
            Reason::RollOutPaused,
            format!("{ready} of {wanted} pods are ready, but the newest version is not rolled out: {resume}"),
        );
    }
    match trouble {
        Some((_, trouble)) if ready >= enough => Verdict::no(
            Reason::Progressing,
            format!("the newest version does not become ready, and pods of an older one still serve: {trouble}"),
        ),
        Some((reason, trouble)) => Verdict::no(reason, format!("{ready} of {wanted} pods are ready: {trouble}")),
        None if ready >= enough => Verdict::no(
            Reason::Progressing,
            format!("the newest version is being rolled out; wait, or see kubectl -n {namespace} get pods"),
        ),
        None => Verdict::no(
            Reason::Progressing,
            format!(
                "{ready} of {wanted} pods are ready; wait, or look for the cause with kubectl -n {namespace} describe pods -l app.kubernetes.io/instance={}",
                deployment.name()
            ),
        ),
    }
}

/// Returns the next step for a paused Deployment.
pub(crate) fn resume(namespace: &str, name: &str) -> String {
    format!("the Deployment is paused; resume it with kubectl -n {namespace} rollout resume deployment/{name}")
}

/// Returns the message about an autoscaler that cannot work while the pods serve. It contains the reason, because the
/// autoscaler's text changes between attempts.
fn idle(namespace: &str, autoscaler: &ChildView) -> Option<String> {
    let is_idle = |condition: &&ConditionView| condition.type_ == "ScalingActive" && condition.status == "False";
    let condition = autoscaler.status().conditions.iter().find(is_idle)?;
    Some(format!(
        ", but their number does not follow the load: the autoscaler reports {}; check that metrics-server is installed and sees the pods (kubectl -n {namespace} describe hpa {})",
        condition.reason.word(),
        autoscaler.name()
    ))
}

/// Returns the reason of a running server that is not ready, from its own report. A new server without keys has no
/// error to report yet.
fn own_words(polled: &PolledPod) -> Option<(Reason, String)> {
    if polled.pod.is_ready() {
        return None;
    }
    let (name, report) = (polled.pod.name(), polled.report.as_ref().ok()?);
    if let Some(error) = report.keys_error.as_ref().filter(|_| report.keys == 0) {
        let advice = "correct spec.entra.tenantId, or let the pods reach the authority";
        return Some((
            Reason::ServerNotReady,
            format!("pod {name} has no keys to verify tokens with: {}; {advice}", error.quoted()),
        ));
    }
    let error = report.policy_error.as_ref().filter(|_| report.revision.is_none())?;
    let advice = "if this lasts, report it as a defect";
    Some((Reason::ServerNotReady, format!("pod {name} has no policy to enforce: {}; {advice}", error.quoted())))
}

#[cfg(test)]
mod tests;
