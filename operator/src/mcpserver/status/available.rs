//! Available: whether enough pods are ready now, and if not, what keeps them from it, in words that help. Pure.

use k8s_openapi::jiff::Timestamp;

use crate::{
    conditions::condition::{Reason, Verdict},
    mcpserver::pods::PolledPod,
    objects::{
        foreign::Quoted,
        views::{ChildView, ConditionView, PodView},
    },
};

/// How the API server says that something which is asked at admission refuses: a webhook, a webhook that is out of reach,
/// a ValidatingAdmissionPolicy.
const ADMISSION: [&str; 3] = ["denied the request", "failed calling webhook", "denied request"];

/// What Available follows from.
#[derive(Clone, Copy)]
pub(crate) struct Rollout<'a> {
    pub(crate) namespace: &'a str,
    /// Pods that there should be: with an autoscaler, as many as it has set last.
    pub(crate) wanted: i32,
    /// Ready pods that are enough, if they are fewer: with an autoscaler, the fewest that it may set, so that pods which it
    /// adds to a server that serves are no outage of it.
    pub(crate) enough: i32,
    pub(crate) deployment: Option<&'a ChildView>,
    /// What sets the number of pods, where the spec leaves it that.
    pub(crate) autoscaler: Option<&'a ChildView>,
    /// True if others set the number of pods, since the spec says nothing of it.
    pub(crate) is_external: bool,
    /// Whether the Deployment has been applied, but not been seen again since.
    pub(crate) is_stale: bool,
    pub(crate) pods: &'a [&'a PodView],
    pub(crate) polled: &'a [PolledPod],
}

/// Whether enough pods of the newest spec, and no others, are ready now.
pub(crate) fn availability(rollout: Rollout<'_>) -> Verdict {
    let Rollout { namespace, wanted, deployment, autoscaler, is_external, is_stale, pods, polled, .. } = rollout;
    let enough = rollout.enough.min(wanted);
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

/// Says if new pods of a Deployment find no room: no node takes one, or the namespace's quota does not allow it.
pub(crate) fn lacks_room<'a>(deployment: &ChildView, pods: impl IntoIterator<Item = &'a PodView>) -> bool {
    let is_for = |found: Option<(Reason, String)>, reason| found.is_some_and(|(found, _)| found == reason);
    is_for(refused(deployment), Reason::QuotaExceeded)
        || pods.into_iter().any(|pod| is_for(trouble(pod), Reason::Unschedulable))
}

/// What is to be said of an autoscaler that cannot do its work: the pods serve nevertheless. Its own text changes between
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

/// Why a server that runs is not ready, as it says itself. A fresh one that has no keys yet has no error to tell either.
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

/// How kubectl is told which pod.
fn reference(pod: &PodView) -> String {
    format!("-n {} {}", pod.full_name.namespace(), pod.name())
}

/// Why pods cannot be created at all, or not even their ReplicaSet.
fn refused(deployment: &ChildView) -> Option<(Reason, String)> {
    let is_refusal = |condition: &&ConditionView| match condition.type_.as_str() {
        "ReplicaFailure" => condition.status == "True",
        "Progressing" => condition.reason.raw() == "ReplicaSetCreateError",
        _ => false,
    };
    let failure = deployment.status().conditions.iter().find(is_refusal)?;
    let message = failure.message.raw();
    let (reason, advice) = if message.contains("exceeded quota") || message.contains("failed quota") {
        (Reason::QuotaExceeded, "raise the namespace's ResourceQuota, or ask for fewer or smaller pods")
    } else if message.contains("violates PodSecurity") {
        (
            Reason::PodSecurityViolated,
            "take back what spec.podTemplate adds: pods as built satisfy the restricted standard",
        )
    } else if ADMISSION.iter().any(|words| message.contains(words)) {
        (Reason::AdmissionRefused, "mend the policy or webhook that refuses the pods, or exempt this namespace from it")
    } else {
        (Reason::PodsRefused, "see kubectl describe replicaset, and remove the cause")
    };
    Some((reason, format!("pods cannot be created: {}; {advice}", failure.message.quoted())))
}

/// What keeps a pod from becoming ready, if its status tells.
fn trouble(pod: &PodView) -> Option<(Reason, String)> {
    if pod.is_ready() || pod.leaving {
        return None;
    }
    let (name, reference) = (pod.name(), reference(pod));
    let unscheduled = pod.trouble.iter().find(|condition| {
        condition.type_ == "PodScheduled" && condition.status == "False" && condition.reason.raw() == "Unschedulable"
    });
    if let Some(condition) = unscheduled {
        let advice = "add capacity, or relax what the pods demand";
        return Some((
            Reason::Unschedulable,
            format!("no node takes pod {name}: {}; {advice}", condition.message.quoted()),
        ));
    }
    pod.containers.iter().find_map(|container| {
        let waiting = container.state.waiting.as_ref();
        let why = waiting.map_or("", |waiting| waiting.reason.raw());
        // The kubelet's own text changes between attempts; this does not.
        if matches!(why, "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull") {
            let image = container.image.word();
            return Some((
                Reason::ImagePullFailed,
                format!(
                    "pod {name} cannot pull the image {image}: push it, or let the nodes reach its registry, or name another in spec.image or the operator's --server-image (kubectl describe pod {reference})"
                ),
            ));
        }
        let crashed = container.last_state.terminated.as_ref().filter(|ended| ended.exit_code != Some(0));
        if let Some(ended) = crashed.or(container.state.terminated.as_ref()) {
            let code = ended.exit_code.unwrap_or_default();
            let log = last_line(ended.message.raw());
            let said = if log.is_empty() { String::new() } else { format!(" saying: {log}") };
            return Some((
                Reason::CrashLooping,
                format!("the server in pod {name} ended with code {code}{said}; see kubectl logs --previous {reference}"),
            ));
        }
        let waiting = waiting.filter(|waiting| !matches!(waiting.reason.raw(), "" | "ContainerCreating" | "PodInitializing"))?;
        Some((
            Reason::ContainerFailed,
            format!(
                "the container of pod {name} cannot start: {}: {}; see kubectl describe pod {reference}",
                waiting.reason.word(),
                waiting.message.quoted()
            ),
        ))
    })
}

/// The last line of a log, without its time: the same crash is the same message.
fn last_line(log: &str) -> Quoted {
    let line = log.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    if let Ok(serde_json::Value::Object(entry)) = serde_json::from_str(line)
        && let Some(message) = entry.get("message").and_then(serde_json::Value::as_str)
    {
        return Quoted::of(message);
    }
    match line.split_once(char::is_whitespace) {
        Some((first, rest)) if first.parse::<Timestamp>().is_ok() => Quoted::of(rest),
        _ => Quoted::of(line),
    }
}

#[cfg(test)]
mod tests;
