//! Messages about trouble of pods: why none is created, and what keeps one from becoming ready. Pure.

use k8s_openapi::jiff::Timestamp;

use crate::{
    conditions::condition::Reason,
    objects::{
        names::{BACKEND, HOLD_PORTS, INSTALL_SHIM},
        status_views::{ConditionView, ContainerStatusView, StateDetailView},
        untrusted_text::Quoted,
        views::{ChildView, PodView},
    },
};

/// Text with which the API server reports a refusal at admission: by a webhook, because a webhook is unreachable, or by
/// a ValidatingAdmissionPolicy.
const ADMISSION: [&str; 3] = ["denied the request", "failed calling webhook", "denied request"];

/// Returns true if there is no room for new pods of a Deployment: no node takes one, or the namespace's quota is used
/// up.
pub(crate) fn lacks_room<'a>(deployment: &ChildView, pods: impl IntoIterator<Item = &'a PodView>) -> bool {
    let is_for = |found: Option<(Reason, String)>, reason| found.is_some_and(|(found, _)| found == reason);
    is_for(refused(deployment), Reason::QuotaExceeded)
        || pods.into_iter().any(|pod| is_for(trouble(pod), Reason::Unschedulable))
}

/// Returns the reason why pods, or their ReplicaSet, cannot be created.
pub(crate) fn refused(deployment: &ChildView) -> Option<(Reason, String)> {
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
            "remove what spec.podTemplate adds: without it, the pods satisfy the Pod Security Standard restricted",
        )
    } else if ADMISSION.iter().any(|words| message.contains(words)) {
        (
            Reason::AdmissionRefused,
            "correct the policy or webhook that refuses the pods, or exempt this namespace from it",
        )
    } else {
        (Reason::PodsRefused, "see kubectl describe replicaset, and remove the cause")
    };
    Some((reason, format!("pods cannot be created: {}; {advice}", failure.message.quoted())))
}

/// Returns the cause that keeps a pod from becoming ready, if its status shows one.
pub(crate) fn trouble(pod: &PodView) -> Option<(Reason, String)> {
    if pod.is_ready() || pod.leaving {
        return None;
    }
    let (name, reference) = (pod.name(), reference(pod));
    let unscheduled = pod.trouble.iter().find(|condition| {
        condition.type_ == "PodScheduled" && condition.status == "False" && condition.reason.raw() == "Unschedulable"
    });
    if let Some(condition) = unscheduled {
        let advice = "add capacity, or lower the pods' requests and constraints";
        return Some((
            Reason::Unschedulable,
            format!("pod {name} cannot be scheduled: {}; {advice}", condition.message.quoted()),
        ));
    }
    pod.containers.iter().find_map(|container| container_trouble(pod, container, &reference))
}

/// Returns the cause that keeps a container from running, if its status shows one.
fn container_trouble(pod: &PodView, container: &ContainerStatusView, reference: &str) -> Option<(Reason, String)> {
    let (name, whose) = (pod.name(), Whose::of(container));
    let waiting = container.state.waiting.as_ref();
    let why = waiting.map_or("", |waiting| waiting.reason.raw());
    // The kubelet's own text changes between attempts; this text does not.
    if matches!(why, "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull") {
        let (image, other) = (container.image.word(), whose.other_image());
        return Some((
            Reason::ImagePullFailed,
            format!(
                "pod {name} cannot pull the image {image}: push it, or let the nodes reach its registry{other} (kubectl describe pod {reference})"
            ),
        ));
    }
    let crashed = container.last_state.terminated.as_ref().filter(|ended| ended.exit_code != Some(0));
    let ended = crashed.or(container.state.terminated.as_ref());
    if let Some(found) = refused_by_node(pod, [ended, waiting].into_iter().flatten()) {
        return Some(found);
    }
    if let Some(ended) = ended {
        let (code, program) = (ended.exit_code.unwrap_or_default(), whose.program(container));
        let log = last_line(ended.message.raw());
        let said = if log.is_empty() { String::new() } else { format!(" with the message: {log}") };
        let (advice, option) = whose.advice(ended.message.raw(), container);
        return Some((
            Reason::CrashLooping,
            format!(
                "{program} in pod {name} ended with code {code}{said}; {advice}see kubectl logs --previous {reference}{option}"
            ),
        ));
    }
    let waiting =
        waiting.filter(|waiting| !matches!(waiting.reason.raw(), "" | "ContainerCreating" | "PodInitializing"))?;
    Some((
        Reason::ContainerFailed,
        format!(
            "{} of pod {name} cannot start: {}: {}; see kubectl describe pod {reference}",
            whose.container(container),
            waiting.reason.word(),
            waiting.message.quoted()
        ),
    ))
}

/// Returns the reason why a node refuses to run a container, if a field of the spec or a setting of the node is the
/// cause.
fn refused_by_node<'a>(
    pod: &PodView,
    said: impl Iterator<Item = &'a StateDetailView> + Clone,
) -> Option<(Reason, String)> {
    let name = pod.name();
    let says = |words: &[&str]| said.clone().any(|detail| words.iter().all(|word| detail.message.raw().contains(word)));
    if says(&["mcp-entra-shim", "permission denied"]) {
        return Some((
            Reason::ContainerFailed,
            format!(
                "the node of pod {name} mounts emptyDir volumes with noexec, so the shim of a stdio backend cannot start; let nodes mount these volumes without noexec, or use a backend with transport: StreamableHttp"
            ),
        ));
    }
    says(&["runAsNonRoot"]).then(|| {
        (
            Reason::ContainerFailed,
            format!(
                "the image of pod {name} would run as root or as a user without a number, which is not allowed for pods of servers; set the number of a user of the image in spec.backend.runAsUser"
            ),
        )
    })
}

/// The owner of a container.
#[derive(Clone, Copy)]
enum Whose {
    Server,
    Backend,
    /// The shim in a container with the server's image.
    Shim,
    /// Containers that other programs add to pods.
    Other,
}

impl Whose {
    fn of(container: &ContainerStatusView) -> Self {
        match container.name.raw() {
            "server" | "" => Self::Server,
            BACKEND => Self::Backend,
            INSTALL_SHIM | HOLD_PORTS => Self::Shim,
            _ => Self::Other,
        }
    }

    fn program(self, container: &ContainerStatusView) -> String {
        match self {
            Self::Server => "the server".to_owned(),
            Self::Backend => "the backend".to_owned(),
            Self::Shim | Self::Other => self.container(container),
        }
    }

    fn container(self, container: &ContainerStatusView) -> String {
        match self {
            Self::Server => "the container".to_owned(),
            Self::Backend | Self::Shim | Self::Other => format!("the container {}", container.name.word()),
        }
    }

    /// Returns the field in which another image can be set.
    fn other_image(self) -> &'static str {
        match self {
            Self::Server | Self::Shim => ", or set another image in spec.image or the operator's --server-image",
            Self::Backend => ", or set another image in spec.backend.image",
            Self::Other => "",
        }
    }

    /// Returns the next step after a container ended, and the kubectl option that selects the container.
    fn advice(self, said: &str, container: &ContainerStatusView) -> (&'static str, String) {
        let option = || format!(" -c {}", container.name.word());
        match self {
            Self::Server => ("", String::new()),
            Self::Backend if said.to_ascii_lowercase().contains("permission denied") || said.contains("EACCES") => (
                "set spec.backend.runAsUser to the user of its image, or list the folder that it writes to in spec.backend.writableDirs, or ",
                option(),
            ),
            Self::Backend if said.contains("Read-only file system") || said.contains("EROFS") => {
                ("list the folder that it writes to in spec.backend.writableDirs, or ", option())
            }
            Self::Backend => ("correct spec.backend.command, args or env, or ", option()),
            Self::Shim | Self::Other => ("", option()),
        }
    }
}

/// Returns the last line of a log without its time, so that the same crash gives the same message.
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

/// Returns the kubectl arguments that select the pod.
pub(crate) fn reference(pod: &PodView) -> String {
    format!("-n {} {}", pod.full_name.namespace(), pod.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_crashes_have_the_same_message() {
        assert_eq!(last_line("x\n2026-11-23T13:52:15.123456Z ERROR no tenant\n\n"), Quoted::of("ERROR no tenant"));
        assert_eq!(
            last_line(r#"{"timestamp":"2026-11-23T13:52:15Z","level":"ERROR","message":"no tenant"}"#),
            Quoted::of("no tenant")
        );
        assert_eq!(last_line("Error: no tenant"), Quoted::of("Error: no tenant"));
        assert_eq!(last_line(""), Quoted::of(""));
    }
}
