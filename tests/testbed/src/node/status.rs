//! Status of a pod from its state, as a kubelet writes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::HOST_ADDRESS;
use super::state::{ContainerState, Phase, PodState, Termination};
use crate::address::Announced;

/// Last written conditions by type: whether True, and the time of the last change.
pub(super) type Conditions = BTreeMap<&'static str, (bool, Timestamp)>;

/// Address of a pod, and the time of its start.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) address: Announced,
    pub(super) since: Timestamp,
}

/// Returns the status as a strategic merge patch. It does not change the conditions of other writers.
pub(super) fn patch(pod: &Pod, state: &PodState, run: Run, conditions: &mut Conditions, now: Timestamp) -> Value {
    let observed = pod.metadata.generation;
    let address = run.address.to_string();
    let written: Vec<_> = verdicts(pod, state)
        .into_iter()
        .map(|verdict| {
            let known = conditions.entry(verdict.condition).or_insert((verdict.holds, now));
            if known.0 != verdict.holds {
                *known = (verdict.holds, now);
            }
            // Null removes values of an earlier patch.
            json!({
                "type": verdict.condition,
                "status": if verdict.holds { "True" } else { "False" },
                "lastTransitionTime": Time(known.1),
                "reason": verdict.reason,
                "message": verdict.message,
                "observedGeneration": observed,
            })
        })
        .collect();
    let ready = |container: &ContainerState| is_ready(container, state);
    let ready_or_done = |container: &ContainerState| match container.is_sidecar {
        true => is_ready(container, state),
        false => container.has_succeeded(),
    };
    json!({
        // The patch must not apply to a new pod of the same name.
        "metadata": { "uid": pod.uid() },
        "status": {
            "observedGeneration": observed,
            "phase": phase(pod, state),
            "conditions": written,
            "hostIP": HOST_ADDRESS,
            "hostIPs": [{ "ip": HOST_ADDRESS }],
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "startTime": Time(run.since),
            "initContainerStatuses": statuses(&state.init_containers, ready_or_done),
            "containerStatuses": statuses(&state.containers, ready),
        }
    })
}

struct Verdict {
    condition: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

/// Returns the conditions that a kubelet owns.
fn verdicts(pod: &Pod, state: &PodState) -> Vec<Verdict> {
    let unless = |condition, holds, reason, message: &dyn Fn() -> String| Verdict {
        condition,
        holds,
        reason: (!holds).then_some(reason),
        message: (!holds).then(message),
    };
    let complete = |container: &ContainerState| match container.is_sidecar {
        true => container.is_started(),
        false => container.has_succeeded(),
    };
    let uninitialized = names(&state.init_containers, complete);
    // A restarted sidecar does not reset the condition.
    let has_run = |container: &ContainerState| !matches!(container.now, Phase::Waiting { .. });
    let initialized = uninitialized.is_empty() || state.containers.iter().any(has_run);
    let sidecars = state.init_containers.iter().filter(|container| container.is_sidecar);
    let unready = names(sidecars.chain(&state.containers), |container| is_ready(container, state));
    let (reason, message) = if phase(pod, state) == "Succeeded" {
        ("PodCompleted", String::new())
    } else {
        ("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
    };
    let gates = closed_gates(pod);
    let containers_ready = unready.is_empty();
    let mut ready = unless("Ready", containers_ready, reason, &|| message.clone());
    if containers_ready && !gates.is_empty() {
        ready = unless("Ready", false, "ReadinessGatesNotReady", &|| {
            format!("the status of pod readiness gate {:?} is not \"True\"", gates.join(" "))
        });
    }
    vec![
        Verdict { condition: "PodReadyToStartContainers", holds: state.prepared, reason: None, message: None },
        unless("Initialized", initialized, "ContainersNotInitialized", &|| {
            format!("containers with incomplete status: [{}]", uninitialized.join(" "))
        }),
        ready,
        unless("ContainersReady", containers_ready, reason, &|| message.clone()),
    ]
}

/// Returns whether the container is ready. A terminating pod has no ready container.
fn is_ready(container: &ContainerState, state: &PodState) -> bool {
    container.is_ready() && !state.terminating
}

/// Returns the names of the containers that do not meet the condition.
fn names<'a>(
    containers: impl IntoIterator<Item = &'a ContainerState>,
    good: impl Fn(&ContainerState) -> bool,
) -> Vec<&'a str> {
    let bad = containers.into_iter().filter(|container| !good(container));
    bad.map(|container| container.name.as_str()).collect()
}

/// Returns the readiness gates whose condition, written by others, is not True.
fn closed_gates(pod: &Pod) -> Vec<&str> {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let open = |gate: &str| conditions.iter().any(|known| known.type_ == gate && known.status == "True");
    gates.map(|gate| gate.condition_type.as_str()).filter(|gate| !open(gate)).collect()
}

/// Returns the pod's phase, by the kubelet's rules. An ended sidecar has no effect; a running one keeps the pod
/// running.
pub(super) fn phase(pod: &Pod, state: &PodState) -> &'static str {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    let ended = |container: &ContainerState| matches!(container.now, Phase::Terminated(_));
    let running = |container: &ContainerState| matches!(container.now, Phase::Running { .. });
    let never_ran =
        |container: &ContainerState| matches!(container.now, Phase::Waiting { .. }) && container.before.is_none();
    let succeeded = state.containers.iter().all(ContainerState::has_succeeded);
    let (sidecars, inits): (Vec<_>, Vec<_>) = state.init_containers.iter().partition(|init| init.is_sidecar);
    let failed_init = inits.iter().any(|init| ended(init) && !init.has_succeeded());
    let sidecar_runs = sidecars.iter().any(|sidecar| running(sidecar));
    if failed_init && policy == Some("Never") {
        "Failed"
    } else if state.terminating && !sidecar_runs && state.containers.iter().all(ended) {
        if succeeded { "Succeeded" } else { "Failed" }
    } else if state.containers.iter().any(never_ran) {
        "Pending"
    } else if sidecar_runs || state.containers.iter().any(running) || policy == Some("Always") {
        "Running"
    } else if succeeded {
        "Succeeded"
    } else if policy == Some("Never") {
        "Failed"
    } else {
        "Running"
    }
}

fn statuses(containers: &[ContainerState], ready: impl Fn(&ContainerState) -> bool) -> Vec<ContainerStatus> {
    let status = |container: &ContainerState| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        image_id: container.image_id.clone(),
        container_id: match &container.now {
            Phase::Running { id, .. } => Some(id.clone()),
            Phase::Terminated(end) => Some(end.id.clone()),
            Phase::Waiting { .. } => container.before.as_ref().map(|end| end.id.clone()),
        },
        ready: ready(container),
        started: Some(container.is_started()),
        restart_count: container.restarts,
        state: Some(api_state(&container.now)),
        last_state: container.before.as_ref().map(|end| api_state(&Phase::Terminated(end.clone()))),
        ..ContainerStatus::default()
    };
    containers.iter().map(status).collect()
}

fn api_state(phase: &Phase) -> ApiState {
    match phase {
        Phase::Waiting { reason, message } => ApiState {
            waiting: Some(ContainerStateWaiting { reason: Some((*reason).to_owned()), message: message.clone() }),
            ..ApiState::default()
        },
        Phase::Running { since, .. } => {
            ApiState { running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }), ..ApiState::default() }
        }
        Phase::Terminated(end) => ApiState { terminated: Some(terminated(end)), ..ApiState::default() },
    }
}

fn terminated(end: &Termination) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(end.id.clone()),
        exit_code: end.exit_code,
        finished_at: Some(Time(end.finished)),
        message: end.message.clone(),
        reason: Some(end.reason.to_owned()),
        started_at: Some(Time(end.started)),
        ..ContainerStateTerminated::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(policy: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "uid": "u", "generation": 3 },
            "spec": {
                "restartPolicy": policy,
                "initContainers": [{ "name": "init", "image": "i" }],
                "containers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }]
            }
        }))
        .unwrap()
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(exit_code: i32) -> Termination {
        Termination {
            id: "testbed://1".to_owned(),
            exit_code,
            reason: if exit_code == 0 { "Completed" } else { "Error" },
            message: None,
            started: time(1),
            finished: time(2),
        }
    }

    fn running(ready: bool) -> Phase {
        Phase::Running { id: "testbed://2".to_owned(), since: time(3), started: true, ready }
    }

    /// Returns a pod whose init container has completed and whose containers are in these phases.
    fn state(policy: &str, containers: [Phase; 2]) -> (Pod, PodState) {
        let pod = pod(policy);
        let mut state = PodState::new(pod.spec.as_ref().unwrap());
        state.prepared = true;
        state.container_mut("init").unwrap().now = Phase::Terminated(ended(0));
        for (container, now) in state.containers.iter_mut().zip(containers) {
            container.now = now;
        }
        (pod, state)
    }

    fn status(pod: &Pod, state: &PodState) -> Value {
        let mut conditions = Conditions::new();
        patch(pod, state, Run { address: Announced::new(0, 1), since: time(0) }, &mut conditions, time(9))["status"]
            .clone()
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == kind).unwrap()
    }

    #[test]
    fn a_pod_is_ready_when_every_container_is() {
        let (pod, all) = state("Always", [running(true), running(true)]);
        assert_eq!(condition(&status(&pod, &all), "Ready")["status"], "True");
        assert_eq!(condition(&status(&pod, &all), "Ready")["message"], Value::Null);
        let (pod, one) = state("Always", [running(true), running(false)]);
        let status = status(&pod, &one);
        assert_eq!(condition(&status, "Ready")["status"], "False");
        assert_eq!(condition(&status, "Ready")["reason"], "ContainersNotReady");
        assert_eq!(condition(&status, "ContainersReady")["message"], "containers with unready status: [b]");
        assert_eq!(status["phase"], "Running");
    }

    #[test]
    fn a_pod_becomes_unready_as_soon_as_it_is_deleted() {
        let (pod, mut state) = state("Always", [running(true), running(true)]);
        state.terminating = true;
        let status = status(&pod, &state);
        assert_eq!(condition(&status, "Ready")["status"], "False");
        assert_eq!(status["containerStatuses"][0]["ready"], false);
    }

    #[test]
    fn a_pod_is_unready_until_the_condition_of_its_readiness_gate_is_true() {
        let (mut pod, state) = state("Always", [running(true), running(true)]);
        pod.spec.as_mut().unwrap().readiness_gates =
            Some(serde_json::from_value(json!([{ "conditionType": "x/gate" }])).unwrap());
        assert_eq!(condition(&status(&pod, &state), "Ready")["reason"], "ReadinessGatesNotReady");
        assert_eq!(condition(&status(&pod, &state), "ContainersReady")["status"], "True");
        pod.status =
            Some(serde_json::from_value(json!({ "conditions": [{ "type": "x/gate", "status": "True" }] })).unwrap());
        assert_eq!(condition(&status(&pod, &state), "Ready")["status"], "True");
    }

    #[test]
    fn the_phase_follows_the_kubelets_rules() {
        let creating = || Phase::waiting("ContainerCreating");
        let done = |code| Phase::Terminated(ended(code));
        for (policy, containers, expected) in [
            ("Always", [running(true), creating()], "Pending"),
            ("Always", [running(false), running(false)], "Running"),
            ("Always", [done(0), done(0)], "Running"),
            ("Never", [done(0), running(true)], "Running"),
            ("Never", [done(0), done(0)], "Succeeded"),
            ("Never", [done(0), done(1)], "Failed"),
            ("OnFailure", [done(0), done(1)], "Running"),
            ("OnFailure", [done(0), done(0)], "Succeeded"),
        ] {
            let (pod, state) = state(policy, containers.clone());
            assert_eq!(phase(&pod, &state), expected, "{policy} {containers:?}");
        }
    }

    #[test]
    fn a_container_in_back_off_counts_as_one_that_has_run() {
        let (pod, mut state) = state("Always", [running(true), Phase::waiting("CrashLoopBackOff")]);
        assert_eq!(phase(&pod, &state), "Pending");
        state.container_mut("b").unwrap().before = Some(ended(3));
        assert_eq!(phase(&pod, &state), "Running");
        let status = status(&pod, &state);
        assert_eq!(status["containerStatuses"][1]["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(status["containerStatuses"][1]["lastState"]["terminated"]["exitCode"], 3);
    }

    #[test]
    fn init_containers_come_first() {
        let pod = pod("Never");
        let mut state = PodState::new(pod.spec.as_ref().unwrap());
        let before = status(&pod, &state);
        assert_eq!(condition(&before, "Initialized")["message"], "containers with incomplete status: [init]");
        assert_eq!(before["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
        assert_eq!(before["phase"], "Pending");
        state.container_mut("init").unwrap().now = Phase::Terminated(ended(1));
        assert_eq!(status(&pod, &state)["phase"], "Failed");
        state.container_mut("init").unwrap().now = Phase::Terminated(ended(0));
        assert_eq!(condition(&status(&pod, &state), "Initialized")["status"], "True");
    }

    /// Returns a pod whose second init container is a sidecar.
    fn with_sidecar(policy: &str, sidecar: Phase, containers: [Phase; 2]) -> (Pod, PodState) {
        let (pod, mut state) = state(policy, containers);
        let sidecar = ContainerState {
            name: "sidecar".into(),
            is_sidecar: true,
            now: sidecar,
            ..state.init_containers[0].clone()
        };
        state.init_containers.push(sidecar);
        (pod, state)
    }

    #[test]
    fn an_unready_sidecar_makes_its_pod_unready() {
        let (pod, unready) = with_sidecar("Always", running(false), [running(true), running(true)]);
        let status = status(&pod, &unready);
        assert_eq!(condition(&status, "Ready")["message"], "containers with unready status: [sidecar]");
        assert_eq!(condition(&status, "Initialized")["status"], "True");
        let inits = &status["initContainerStatuses"];
        assert_eq!([&inits[0]["ready"], &inits[1]["ready"]], [true, false]);
        assert_eq!([&inits[0]["started"], &inits[1]["started"]], [false, true]);
    }

    #[test]
    fn a_pod_is_initialized_once_its_sidecar_has_started_and_stays_so_while_a_container_runs() {
        let waiting = || Phase::waiting("PodInitializing");
        for (sidecar, container, initialized) in [
            (waiting(), waiting(), "False"),
            (running(true), waiting(), "True"),
            (Phase::Terminated(ended(1)), running(true), "True"),
            (Phase::Terminated(ended(0)), waiting(), "False"),
        ] {
            let (pod, state) = with_sidecar("Always", sidecar.clone(), [container.clone(), waiting()]);
            let found = status(&pod, &state);
            assert_eq!(condition(&found, "Initialized")["status"], initialized, "{sidecar:?} {container:?}");
        }
    }

    #[test]
    fn a_running_sidecar_keeps_its_pod_running_and_an_ended_one_has_no_effect() {
        let done = |code| Phase::Terminated(ended(code));
        for (policy, sidecar, containers, expected) in [
            ("Never", running(true), [done(0), done(0)], "Running"),
            ("Never", done(137), [done(0), done(0)], "Succeeded"),
            ("Never", done(1), [running(true), done(0)], "Running"),
            ("Never", done(0), [done(1), done(0)], "Failed"),
            (
                "Always",
                running(true),
                [Phase::waiting("PodInitializing"), Phase::waiting("PodInitializing")],
                "Pending",
            ),
        ] {
            let (pod, state) = with_sidecar(policy, sidecar.clone(), containers.clone());
            assert_eq!(phase(&pod, &state), expected, "{policy} {sidecar:?} {containers:?}");
        }
        let (pod, mut state) = with_sidecar("Always", running(true), [done(0), done(0)]);
        state.terminating = true;
        assert_eq!(phase(&pod, &state), "Running", "the sidecar still ends");
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let mut conditions = Conditions::new();
        let mut ready_since = |state: &(Pod, PodState), now| {
            let address = Announced::new(0, 1);
            let patch = patch(&state.0, &state.1, Run { address, since: time(0) }, &mut conditions, time(now));
            condition(&patch["status"], "Ready")["lastTransitionTime"].clone()
        };
        let unready = state("Always", [running(false), running(true)]);
        let ready = state("Always", [running(true), running(true)]);
        assert_eq!(ready_since(&unready, 10), "1970-01-01T00:00:10Z");
        assert_eq!(ready_since(&unready, 20), "1970-01-01T00:00:10Z");
        assert_eq!(ready_since(&ready, 30), "1970-01-01T00:00:30Z");
    }
}
