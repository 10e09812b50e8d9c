//! Progress of a Deployment's upgrade, as reported by its controller and its pods. Pure.

use std::borrow::Borrow;

use super::RollOut;
use crate::{
    conditions::pod_trouble::lacks_room,
    objects::views::{ChildView, PodView},
};

/// The progress of a Deployment's upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No upgrade runs, or it is complete.
    Settled,
    /// New pods are starting.
    Running,
    /// The Deployment is paused.
    Paused,
    /// There is no room for new pods: no node takes them, or the namespace's quota is used up.
    NoRoom,
    /// New pods do not become ready.
    Failed,
}

/// Returns the progress of a Deployment's upgrade. `pods` is called only if the result depends on them.
pub(crate) fn progress<P: Borrow<PodView>>(deployment: &ChildView, pods: impl FnOnce() -> Vec<P>) -> Progress {
    if RollOut::of(deployment) != RollOut::Upgrade || is_complete(deployment) {
        return Progress::Settled;
    }
    if progressing(deployment).is_some_and(|(status, _)| status == "False") {
        let pods = pods();
        let room = lacks_room(deployment, pods.iter().map(Borrow::borrow));
        return if room { Progress::NoRoom } else { Progress::Failed };
    }
    if deployment.paused { Progress::Paused } else { Progress::Running }
}

fn progressing(deployment: &ChildView) -> Option<(&str, &str)> {
    let condition = deployment.status().conditions.iter().find(|condition| condition.type_ == "Progressing")?;
    Some((&condition.status, condition.reason.raw()))
}

/// Returns true if the newest template was rolled out once. Later trouble of its pods is not a failed upgrade.
fn is_complete(deployment: &ChildView) -> bool {
    deployment.is_observed() && progressing(deployment).is_some_and(|(_, reason)| reason == "NewReplicaSetAvailable")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::names::ROLL_OUT;

    fn mk(roll_out: &str, paused: bool, conditions: Value) -> ChildView {
        serde_json::from_value(json!({
            "metadata": {"name": "graph", "generation": 2, "annotations": {ROLL_OUT: roll_out}},
            "spec": {"paused": paused},
            "status": {"observedGeneration": 2, "conditions": conditions},
        }))
        .unwrap()
    }

    fn mk_pod(scheduled: &str) -> PodView {
        serde_json::from_value(json!({"metadata": {"name": "graph-1"}, "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": scheduled, "reason": "Unschedulable", "message": "0/3 nodes"}]}}))
        .unwrap()
    }

    fn said(status: &str, reason: &str, message: &str) -> Value {
        json!({"type": "Progressing", "status": status, "reason": reason, "message": message})
    }

    fn refused(message: &str) -> Value {
        json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message})
    }

    #[test]
    fn each_state_of_a_deployment_has_its_own_progress() {
        let late = || said("False", "ProgressDeadlineExceeded", "");
        let quota = "pods \"g\" is forbidden: exceeded quota: q";
        for (what, deployment, pod, expected) in [
            (
                "it is complete",
                mk("upgrade", false, json!([said("True", "NewReplicaSetAvailable", "")])),
                "True",
                Progress::Settled,
            ),
            ("its author asked", mk("requested", false, json!([late()])), "True", Progress::Settled),
            (
                "it runs",
                mk("upgrade", false, json!([said("True", "ReplicaSetUpdated", "")])),
                "True",
                Progress::Running,
            ),
            ("no condition yet", mk("upgrade", false, json!([])), "True", Progress::Running),
            ("a node may still come", mk("upgrade", false, json!([said("True", "x", "")])), "False", Progress::Running),
            (
                "it is paused",
                mk("upgrade", true, json!([said("Unknown", "DeploymentPaused", "")])),
                "True",
                Progress::Paused,
            ),
            (
                "it is resumed",
                mk("upgrade", false, json!([said("Unknown", "DeploymentResumed", "")])),
                "True",
                Progress::Running,
            ),
            ("pods crash", mk("upgrade", false, json!([late()])), "True", Progress::Failed),
            ("paused after it failed", mk("upgrade", true, json!([late()])), "True", Progress::Failed),
            ("no node takes the pod", mk("upgrade", false, json!([late()])), "False", Progress::NoRoom),
            ("over quota", mk("upgrade", false, json!([late(), refused(quota)])), "True", Progress::NoRoom),
            (
                "the pods are refused",
                mk("upgrade", false, json!([late(), refused("violates PodSecurity")])),
                "True",
                Progress::Failed,
            ),
            (
                "over quota of ReplicaSets",
                mk("upgrade", false, json!([said("False", "ReplicaSetCreateError", quota)])),
                "True",
                Progress::NoRoom,
            ),
            (
                "no ReplicaSet",
                mk("upgrade", false, json!([said("False", "ReplicaSetCreateError", "denied the request")])),
                "True",
                Progress::Failed,
            ),
        ] {
            assert_eq!(progress(&deployment, || vec![mk_pod(pod)]), expected, "{what}");
        }
    }

    #[test]
    fn a_condition_of_an_older_template_does_not_end_the_rollout() {
        let mut deployment = mk("upgrade", false, json!([said("True", "NewReplicaSetAvailable", "")]));
        deployment.generation = Some(3);
        assert_eq!(progress(&deployment, Vec::<PodView>::new), Progress::Running);
    }
}
