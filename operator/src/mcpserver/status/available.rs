//! Available: enough pods are ready now, or what keeps them from it and the next step. Pure.

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

/// The facts that Available follows from.
#[derive(Clone, Copy)]
pub(crate) struct PodFacts<'a> {
    pub(crate) namespace: &'a str,
    /// Pods that there should be: with an autoscaler, as many as it has set last.
    pub(crate) wanted: i32,
    /// Ready pods that are enough, if they are fewer: with an autoscaler, the fewest that it may set, so that pods
    /// which it adds to a server that serves are no outage of it.
    pub(crate) enough: i32,
    pub(crate) deployment: Option<&'a ChildView>,
    /// The autoscaler that sets the number of pods, if the spec asks for one.
    pub(crate) autoscaler: Option<&'a ChildView>,
    /// True if others set the number of pods, since the spec says nothing of it.
    pub(crate) is_external: bool,
    /// True if the Deployment has been applied and not been seen since.
    pub(crate) is_stale: bool,
    pub(crate) pods: &'a [Arc<PodView>],
    pub(crate) polled: &'a [PolledPod],
}

/// The verdict that enough pods of the newest spec, and no others, are ready now.
pub(crate) fn availability(facts: PodFacts<'_>) -> Verdict {
    let PodFacts { namespace, wanted, deployment, autoscaler, is_external, is_stale, pods, polled, .. } = facts;
    let enough = facts.enough.min(wanted);
    if wanted == 0 && autoscaler.is_some() {
        return Verdict::no(
            Reason::ScaledToZero,
            format!(
                "no pod is wanted: somebody has scaled the Deployment to 0, which its autoscaler leaves so; start one with kubectl -n {namespace} scale deployment {} --replicas=1",
                deployment.map(ChildView::name).unwrap_or_default()
            ),
        );
    }
    if wanted == 0 && is_external {
        return Verdict::no(
            Reason::ScaledToZero,
            format!(
                "no pod is wanted: somebody has scaled the Deployment to 0; start one with kubectl -n {namespace} scale deployment {} --replicas=1, or set spec.replicas",
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
        return Verdict::no(Reason::Progressing, "there is no Deployment yet; the condition Programmed says why");
    };
    let status = deployment.status();
    let ready = status.ready_replicas;
    // What an autoscaler changes is the number alone.
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
            format!("{ready} of {wanted} pods are ready, and the newest version is not rolled out: {resume}"),
        );
    }
    match trouble {
        Some((_, trouble)) if ready >= enough => Verdict::no(
            Reason::Progressing,
            format!("the newest version does not come up, and pods of an older one still serve: {trouble}"),
        ),
        Some((reason, trouble)) => Verdict::no(reason, format!("{ready} of {wanted} pods are ready: {trouble}")),
        None if ready >= enough => Verdict::no(
            Reason::Progressing,
            format!("the newest version is being rolled out; wait, or see kubectl -n {namespace} get pods"),
        ),
        None => Verdict::no(
            Reason::Progressing,
            format!(
                "{ready} of {wanted} pods are ready; wait, or see what holds them up with kubectl -n {namespace} describe pods -l app.kubernetes.io/instance={}",
                deployment.name()
            ),
        ),
    }
}

/// The next step where somebody has paused a Deployment.
pub(crate) fn resume(namespace: &str, name: &str) -> String {
    format!(
        "somebody has paused the Deployment; resume it with kubectl -n {namespace} rollout resume deployment/{name}"
    )
}

/// The words about an autoscaler that cannot do its work: the pods serve nevertheless. Its own text changes between
/// attempts; the reason does not.
fn idle(namespace: &str, autoscaler: &ChildView) -> Option<String> {
    let is_idle = |condition: &&ConditionView| condition.type_ == "ScalingActive" && condition.status == "False";
    let condition = autoscaler.status().conditions.iter().find(is_idle)?;
    Some(format!(
        ", but their number does not follow the load: the autoscaler says {}; check that metrics-server is installed and sees the pods (kubectl -n {namespace} describe hpa {})",
        condition.reason.word(),
        autoscaler.name()
    ))
}

/// The reason why a server that runs is not ready, as it says itself. A fresh one that has no keys yet has no error to
/// tell either.
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
