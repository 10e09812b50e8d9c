//! Progress of one Deployment's upgrade, as its controller and its pods report it. Pure.

use std::borrow::Borrow;

use super::RollOut;
use crate::{
    conditions::pod_trouble::lacks_room,
    objects::views::{ChildView, PodView},
};

/// The progress of a Deployment's upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is none, or it is done.
    Settled,
    /// New pods are on their way.
    Running,
    /// Somebody has paused the Deployment.
    Paused,
    /// New pods find no room: no node takes them, or the namespace's quota does not allow them.
    NoRoom,
    /// New pods do not come up.
    Failed,
}

/// Reports the progress of a Deployment's upgrade. The pods are asked for only where they matter.
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

/// Returns true if the newest template has come up once. What becomes of its pods later is no failed upgrade.
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
    fn each_state_of_a_deployment_is_told_from_its_neighbours() {
        let late = || said("False", "ProgressDeadlineExceeded", "");
        let quota = "pods \"g\" is forbidden: exceeded quota: q";
        for (what, deployment, pod, expected) in [
            (
                "it is done",
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
            ("nothing is said yet", mk("upgrade", false, json!([])), "True", Progress::Running),
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
    fn what_was_said_of_an_older_template_is_not_its_end() {
        let mut deployment = mk("upgrade", false, json!([said("True", "NewReplicaSetAvailable", "")]));
        deployment.generation = Some(3);
        assert_eq!(progress(&deployment, Vec::<PodView>::new), Progress::Running);
    }
}
