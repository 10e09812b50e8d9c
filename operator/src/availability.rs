//! Available: whether enough pods are ready now, and if not, what keeps them from it, in words that help. Pure.

use crate::{
    conditions::{Reason, Verdict},
    views::{DeploymentView, PodView, is_true},
};

/// Lines of a crashed server's log that a message carries.
const LOG_LINES: usize = 3;
/// Characters of foreign text that a message carries.
const LONGEST_QUOTE: usize = 600;

/// Whether enough pods are ready now.
pub(crate) fn availability(wanted: i32, deployment: Option<&DeploymentView>, pods: &[&PodView]) -> Verdict {
    if wanted == 0 {
        return Verdict::no(
            Reason::ScaledToZero,
            "no pod is wanted: spec.replicas is 0; set it to 1 or more to serve requests",
        );
    }
    let Some(deployment) = deployment else {
        return Verdict::no(Reason::Progressing, "there is no Deployment yet; the condition Programmed says why");
    };
    let status = &deployment.status;
    let trouble = refused(deployment).or_else(|| pods.iter().find_map(|pod| trouble(pod)));
    let ready = status.ready_replicas;
    if ready >= wanted {
        let mut message = format!("{ready} of {wanted} pods are ready");
        if let Some((_, trouble)) = trouble.filter(|_| status.updated_replicas < wanted || status.replicas > wanted) {
            message = format!("{message}, but a newer version does not come up: {trouble}");
        }
        return Verdict::yes(Reason::PodsReady, message);
    }
    match trouble {
        Some((reason, trouble)) => Verdict::no(reason, format!("{ready} of {wanted} pods are ready: {trouble}")),
        None => Verdict::no(
            Reason::Progressing,
            format!(
                "{ready} of {wanted} pods are ready; wait, or see what holds them up with kubectl describe pods -l app.kubernetes.io/instance={}",
                deployment.metadata.name.as_deref().unwrap_or_default()
            ),
        ),
    }
}

/// Why the ReplicaSet's controller cannot create pods at all.
fn refused(deployment: &DeploymentView) -> Option<(Reason, String)> {
    let conditions = &deployment.status.conditions;
    if !is_true(conditions, "ReplicaFailure") {
        return None;
    }
    let failure = conditions.iter().find(|condition| condition.type_ == "ReplicaFailure")?;
    let advice = "raise the namespace's quota, or mend the policy that refuses the pods";
    Some((Reason::PodsRefused, format!("pods cannot be created: {}; {advice}", quote(&failure.message))))
}

/// What keeps a pod from becoming ready, if its status tells.
fn trouble(pod: &PodView) -> Option<(Reason, String)> {
    if pod.is_ready() || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let unscheduled = pod.status.conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled" && condition.status == "False" && condition.reason == "Unschedulable"
    });
    if let Some(condition) = unscheduled {
        let advice = "add capacity, or relax what the pods demand";
        return Some((
            Reason::Unschedulable,
            format!("no node takes pod {name}: {}; {advice}", quote(&condition.message)),
        ));
    }
    pod.status.container_statuses.iter().find_map(|container| {
        let waiting = container.state.waiting.as_ref();
        let why = waiting.map_or("", |waiting| waiting.reason.as_str());
        // The kubelet's own text changes between attempts; this does not.
        if matches!(why, "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull") {
            let image = &container.image;
            return Some((
                Reason::ImagePullFailed,
                format!(
                    "pod {name} cannot pull the image {image}; check the operator's --server-image and the nodes' access to that registry (kubectl describe pod {name})"
                ),
            ));
        }
        let crashed = container.last_state.terminated.as_ref().filter(|ended| ended.exit_code != Some(0));
        if let Some(ended) = crashed.or(container.state.terminated.as_ref()) {
            let code = ended.exit_code.unwrap_or_default();
            let log = last_lines(&ended.message);
            let said = if log.is_empty() { String::new() } else { format!(" saying: {log}") };
            return Some((
                Reason::CrashLooping,
                format!("the server in pod {name} ended with code {code}{said}; see kubectl logs --previous {name}"),
            ));
        }
        let waiting = waiting.filter(|waiting| !matches!(waiting.reason.as_str(), "" | "ContainerCreating" | "PodInitializing"))?;
        Some((
            Reason::ContainerFailed,
            format!(
                "the container of pod {name} cannot start: {}: {}; see kubectl describe pod {name}",
                waiting.reason,
                quote(&waiting.message)
            ),
        ))
    })
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).copied();
    quote(&last.collect::<Vec<_>>().join(" | "))
}

fn quote(text: &str) -> String {
    text.trim().chars().take(LONGEST_QUOTE).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::conditions::State;

    fn mk_deployment(ready: i32, conditions: serde_json::Value) -> DeploymentView {
        serde_json::from_value(json!({
            "metadata": {"name": "graph", "generation": 2},
            "status": {"replicas": 2, "updatedReplicas": 2, "readyReplicas": ready,
                       "conditions": conditions},
        }))
        .unwrap()
    }

    fn mk_pod(status: serde_json::Value) -> PodView {
        serde_json::from_value(json!({"metadata": {"name": "graph-1"}, "status": status})).unwrap()
    }

    fn with_container(container: serde_json::Value) -> Verdict {
        let pod = mk_pod(json!({"phase": "Running", "containerStatuses": [container]}));
        availability(2, Some(&mk_deployment(1, json!([]))), &[&pod])
    }

    fn assert_no(verdict: &Verdict, reason: Reason, part: &str) {
        assert_eq!(
            (verdict.state, verdict.reason.as_str()),
            (State::False, reason.to_string().as_str()),
            "{verdict:?}"
        );
        assert!(verdict.message.contains(part), "{verdict:?}");
    }

    #[test]
    fn as_many_pods_as_wanted_are_enough_and_one_fewer_is_not() {
        assert_eq!(availability(2, Some(&mk_deployment(2, json!([]))), &[]).state, State::True);
        assert_no(&availability(2, Some(&mk_deployment(1, json!([]))), &[]), Reason::Progressing, "1 of 2");
        assert_no(&availability(2, None, &[]), Reason::Progressing, "Programmed");
        assert_no(&availability(0, Some(&mk_deployment(0, json!([]))), &[]), Reason::ScaledToZero, "spec.replicas");
    }

    #[test]
    fn each_trouble_of_a_pod_is_told_with_a_next_step() {
        let pull =
            |reason: &str| json!({"image": "x:1", "state": {"waiting": {"reason": reason, "message": "volatile"}}});
        for reason in ["ErrImagePull", "ImagePullBackOff"] {
            let verdict = with_container(pull(reason));
            assert_no(&verdict, Reason::ImagePullFailed, "image x:1; check the operator's --server-image");
            assert!(!verdict.message.contains("volatile"));
        }
        let crash = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 2, "message": "one\ntwo\nthree\n\nAZURE_CLIENT_SECRET is set\n"}}});
        let verdict = with_container(crash);
        assert_no(
            &verdict,
            Reason::CrashLooping,
            "code 2 saying: two | three | AZURE_CLIENT_SECRET is set; see kubectl",
        );
        let between_crashes = json!({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 2}}});
        assert_no(&with_container(between_crashes), Reason::CrashLooping, "ended with code 2; see");
        let config = json!({"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}}});
        assert_no(&with_container(config), Reason::ContainerFailed, "CreateContainerConfigError: no key");
        assert_no(
            &with_container(json!({"state": {"waiting": {"reason": "ContainerCreating"}}})),
            Reason::Progressing,
            "",
        );

        let unscheduled = mk_pod(json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}));
        let verdict = availability(2, Some(&mk_deployment(1, json!([]))), &[&unscheduled]);
        assert_no(&verdict, Reason::Unschedulable, "0/3 nodes; add capacity");

        let quota = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]);
        assert_no(&availability(2, Some(&mk_deployment(0, quota)), &[]), Reason::PodsRefused, "exceeded quota; raise");
    }

    #[test]
    fn a_roll_out_that_is_stuck_is_told_while_the_old_pods_still_serve() {
        let mut deployment = mk_deployment(2, json!([]));
        deployment.status.replicas = 3;
        deployment.status.updated_replicas = 1;
        let crash =
            json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 2}}});
        let pod = mk_pod(json!({"phase": "Running", "containerStatuses": [crash]}));
        let verdict = availability(2, Some(&deployment), &[&pod]);
        assert_eq!(verdict.state, State::True);
        assert!(verdict.message.contains("newer version does not come up"), "{}", verdict.message);
    }
}
