use mcp_entra_policy::ServerStatus;
use serde_json::json;

use super::*;
use crate::conditions::condition::State;

fn mk_deployment(ready: i32, conditions: serde_json::Value) -> ChildView {
    serde_json::from_value(json!({
        "metadata": {"name": "graph", "generation": 2},
        "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": ready,
                   "conditions": conditions},
    }))
    .unwrap()
}

fn mk_pod(status: serde_json::Value) -> Arc<PodView> {
    let pod: PodView =
        serde_json::from_value(json!({"metadata": {"name": "graph-1", "namespace": "productivity"}, "status": status}))
            .unwrap();
    Arc::new(pod)
}

fn mk_facts<'a>(wanted: i32, deployment: Option<&'a ChildView>, pods: &'a [Arc<PodView>]) -> PodFacts<'a> {
    let namespace = "productivity";
    let (autoscaler, is_external, is_stale) = (None, false, false);
    PodFacts { namespace, wanted, enough: wanted, deployment, autoscaler, is_external, is_stale, pods, polled: &[] }
}

fn available(wanted: i32, deployment: Option<&ChildView>, pods: &[Arc<PodView>]) -> Verdict {
    availability(mk_facts(wanted, deployment, pods))
}

fn with_container(container: serde_json::Value) -> Verdict {
    let pod = mk_pod(json!({"phase": "Running", "containerStatuses": [container]}));
    available(2, Some(&mk_deployment(1, json!([]))), &[pod])
}

fn assert_no(verdict: &Verdict, reason: Reason, part: &str) {
    assert_eq!((verdict.state, verdict.reason.as_str()), (State::False, reason.to_string().as_str()), "{verdict:?}");
    assert!(verdict.message.contains(part), "{verdict:?}");
}

#[test]
fn as_many_pods_as_wanted_are_enough_and_one_fewer_is_not() {
    assert_eq!(available(2, Some(&mk_deployment(2, json!([]))), &[]).state, State::True);
    assert_no(&available(2, Some(&mk_deployment(1, json!([]))), &[]), Reason::Progressing, "1 of 2");
    assert_no(&available(2, None, &[]), Reason::Progressing, "Programmed");
    assert_no(&available(0, Some(&mk_deployment(0, json!([]))), &[]), Reason::ScaledToZero, "spec.replicas");
}

#[test]
fn an_autoscaler_without_metrics_is_reported_while_the_pods_serve() {
    let message = |active: &str| {
        let condition = json!([{"type": "ScalingActive", "status": active, "reason": "FailedGetResourceMetric"}]);
        let autoscaler = serde_json::from_value(json!({
            "metadata": {"name": "graph"}, "status": {"conditions": condition},
        }));
        let deployment = mk_deployment(2, json!([]));
        let verdict =
            availability(PodFacts { autoscaler: Some(&autoscaler.unwrap()), ..mk_facts(2, Some(&deployment), &[]) });
        assert_eq!(verdict.state, State::True);
        verdict.message
    };
    assert!(message("False").contains("FailedGetResourceMetric; check that metrics-server"), "{}", message("False"));
    assert_eq!(message("True"), "2 of 2 pods are ready");
}

#[test]
fn only_fewer_ready_pods_than_the_autoscalers_minimum_are_an_outage() {
    let autoscaler = ChildView::default();
    let verdict = |ready: i32, updated: i32| {
        let mut deployment = mk_deployment(ready, json!([]));
        let status = deployment.status_mut();
        (status.replicas, status.updated_replicas) = (5, updated);
        availability(PodFacts { autoscaler: Some(&autoscaler), enough: 2, ..mk_facts(5, Some(&deployment), &[]) })
    };
    assert_eq!((verdict(2, 5).state, verdict(2, 5).message.as_str()), (State::True, "2 of 5 pods are ready"));
    assert_no(&verdict(1, 5), Reason::Progressing, "1 of 5");
    assert_no(&verdict(5, 4), Reason::Progressing, "being rolled out");
    // The number that it has set is newer than what the Deployment's controller has seen.
    let scaled = |autoscaler: Option<&ChildView>| {
        let deployment = json!({"metadata": {"generation": 3}, "spec": {"replicas": 5}, "status":
            {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}});
        let deployment = serde_json::from_value(deployment).unwrap();
        availability(PodFacts { autoscaler, enough: 2, ..mk_facts(5, Some(&deployment), &[]) }).state
    };
    assert_eq!((scaled(Some(&autoscaler)), scaled(None)), (State::True, State::False));
}

#[test]
fn with_replicas_set_by_others_one_ready_pod_is_enough_and_zero_is_reported() {
    let verdict = |wanted: i32, ready: i32| {
        let mut deployment = mk_deployment(ready, json!([]));
        let status = deployment.status_mut();
        (status.replicas, status.updated_replicas) = (wanted, wanted);
        availability(PodFacts { is_external: true, enough: 1, ..mk_facts(wanted, Some(&deployment), &[]) })
    };
    assert_eq!((verdict(3, 1).state, verdict(3, 1).message.as_str()), (State::True, "1 of 3 pods are ready"));
    assert_no(&verdict(3, 0), Reason::Progressing, "0 of 3");
    assert_no(&verdict(0, 0), Reason::ScaledToZero, "kubectl -n productivity scale deployment graph --replicas=1");
}

#[test]
fn a_paused_deployment_with_an_old_version_is_reported_with_the_resume_command() {
    let verdict = |ready: i32, updated: i32, pods: &[Arc<PodView>]| {
        let mut deployment = mk_deployment(ready, json!([]));
        deployment.paused = true;
        deployment.status_mut().updated_replicas = updated;
        available(2, Some(&deployment), pods)
    };
    let resume = "resume it with kubectl -n productivity rollout resume deployment/graph";
    assert_eq!(verdict(2, 2, &[]).state, State::True);
    assert_no(&verdict(2, 0, &[]), Reason::RollOutPaused, resume);
    assert_no(&verdict(0, 0, &[]), Reason::RollOutPaused, resume);
    let crash = json!({"lastState": {"terminated": {"exitCode": 2}}});
    let pod = mk_pod(json!({"phase": "Running", "containerStatuses": [crash]}));
    assert_no(&verdict(1, 0, std::slice::from_ref(&pod)), Reason::CrashLooping, "ended with code 2");
    assert_no(&verdict(2, 1, &[pod]), Reason::RollOutPaused, resume);
}

#[test]
fn a_deployment_that_is_scaled_to_zero_disables_its_autoscaler() {
    let (autoscaler, deployment) = (ChildView::default(), mk_deployment(0, json!([])));
    let facts = PodFacts { autoscaler: Some(&autoscaler), ..mk_facts(0, Some(&deployment), &[]) };
    assert_no(&availability(facts), Reason::ScaledToZero, "kubectl -n productivity scale deployment graph");
}

#[test]
fn each_trouble_of_a_pod_is_reported_with_a_next_step() {
    let pull = |reason: &str| json!({"image": "x:1", "state": {"waiting": {"reason": reason, "message": "volatile"}}});
    for reason in ["ErrImagePull", "ImagePullBackOff"] {
        let verdict = with_container(pull(reason));
        assert_no(&verdict, Reason::ImagePullFailed, "image x:1: push it, or let the nodes reach its registry");
        assert!(!verdict.message.contains("volatile"));
    }
    let crash = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 2, "message": "one\ntwo\nthree\n\nAZURE_CLIENT_SECRET is set\n"}}});
    let verdict = with_container(crash);
    assert_no(
        &verdict,
        Reason::CrashLooping,
        "code 2 with the message: “AZURE_CLIENT_SECRET is set”; see kubectl logs --previous -n productivity graph-1",
    );
    let between_crashes = json!({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 2}}});
    assert_no(&with_container(between_crashes), Reason::CrashLooping, "ended with code 2; see");
    let config = json!({"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}}});
    assert_no(&with_container(config), Reason::ContainerFailed, "CreateContainerConfigError: “no key”");
    assert_no(&with_container(json!({"state": {"waiting": {"reason": "ContainerCreating"}}})), Reason::Progressing, "");

    let unscheduled = mk_pod(json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}));
    let verdict = available(2, Some(&mk_deployment(1, json!([]))), &[unscheduled]);
    assert_no(&verdict, Reason::Unschedulable, "“0/3 nodes”; add capacity");

    for (said, reason, advice) in [
        ("pods \"g\" is forbidden: exceeded quota: q", Reason::QuotaExceeded, "raise the namespace's ResourceQuota"),
        ("violates PodSecurity \"restricted:latest\"", Reason::PodSecurityViolated, "remove what spec.podTemplate"),
        ("admission webhook \"p\" denied the request: no", Reason::AdmissionRefused, "correct the policy"),
        ("failed calling webhook \"p\": refused", Reason::AdmissionRefused, "correct the policy"),
        ("ValidatingAdmissionPolicy 'p' denied request: no", Reason::AdmissionRefused, "correct the policy"),
        ("serviceaccount \"g\" not found", Reason::PodsRefused, "see kubectl describe replicaset"),
    ] {
        let failure = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}]);
        assert_no(&available(2, Some(&mk_deployment(0, failure)), &[]), reason, advice);
    }
}

#[test]
fn a_stuck_rollout_is_reported_while_the_old_pods_serve() {
    let mut deployment = mk_deployment(2, json!([]));
    let status = deployment.status_mut();
    status.replicas = 3;
    status.updated_replicas = 1;
    let crash =
        json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 2}}});
    let pod = mk_pod(json!({"phase": "Running", "containerStatuses": [crash]}));
    let verdict = available(2, Some(&deployment), &[pod]);
    assert_no(&verdict, Reason::Progressing, "the newest version does not become ready");
    assert!(verdict.message.contains("ended with code 2"), "{}", verdict.message);
}

#[test]
fn old_pods_do_not_make_a_new_spec_available() {
    let change = |change: fn(&mut ChildView)| {
        let mut deployment = mk_deployment(2, json!([]));
        change(&mut deployment);
        available(2, Some(&deployment), &[])
    };
    assert_eq!(change(|_| {}).state, State::True);
    let part = "being rolled out";
    assert_no(&change(|deployment| deployment.generation = Some(3)), Reason::Progressing, part);
    assert_no(&change(|deployment| deployment.status_mut().updated_replicas = 1), Reason::Progressing, part);
    assert_no(&change(|deployment| deployment.status_mut().replicas = 3), Reason::Progressing, part);
    let deployment = mk_deployment(2, json!([]));
    let stale = PodFacts { is_stale: true, ..mk_facts(2, Some(&deployment), &[]) };
    assert_no(&availability(stale), Reason::Progressing, "kubectl -n productivity");
}

#[test]
fn a_server_that_is_not_ready_is_quoted() {
    let polled = |keys: serde_json::Value, revision: Option<&str>, error: Option<&str>| PolledPod {
        pod: mk_pod(json!({"phase": "Running"})),
        report: Ok(serde_json::from_value::<ServerStatus>(json!({
            "version": "1",
            "policy": {"revision": revision, "error": error},
            "federation": {"identity": null, "works": null, "message": null, "lastProbe": null},
            "keys": keys,
        }))
        .unwrap()
        .into()),
    };
    let verdict = |polled: PolledPod| {
        let deployment = mk_deployment(0, json!([]));
        availability(PodFacts { polled: &[polled], ..mk_facts(2, Some(&deployment), &[]) })
    };
    let none = json!({"count": 0, "ageSeconds": null, "error": "tenant not found"});
    assert_no(&verdict(polled(none, Some("r"), None)), Reason::ServerNotReady, "“tenant not found”; correct spec");
    let some = || json!({"count": 1, "ageSeconds": 1, "error": "timed out"});
    assert_no(&verdict(polled(some(), Some("r"), Some("old"))), Reason::Progressing, "0 of 2");
    assert_no(&verdict(polled(some(), None, Some("no such file"))), Reason::ServerNotReady, "no such file");
    let fresh = json!({"count": 0, "ageSeconds": null, "error": null});
    assert_no(&verdict(polled(fresh, None, None)), Reason::Progressing, "0 of 2");
}

#[test]
fn a_sidecar_that_cannot_start_is_reported_with_its_field_and_a_finished_one_is_not() {
    let with = |container: serde_json::Value| {
        let waits = json!({"name": "server", "state": {"waiting": {"reason": "PodInitializing"}}});
        let status = json!({"phase": "Pending", "initContainerStatuses": [container], "containerStatuses": [waits]});
        available(2, Some(&mk_deployment(1, json!([]))), &[mk_pod(status)])
    };
    let waiting = |name: &str, reason: &str, message: &str| json!({"name": name, "image": "x:1", "state": {"waiting": {"reason": reason, "message": message}}});
    let ended = |code: i32, message: &str| {
        json!({"name": "backend", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": code, "message": message}}})
    };
    let shim = "exec: \"/run/mcp-entra/shim/mcp-entra-shim\": permission denied: unknown";
    for (container, reason, told) in [
        (
            waiting("backend", "ErrImagePull", ""),
            Reason::ImagePullFailed,
            "or set another image in spec.backend.image (",
        ),
        (
            waiting("install-shim", "ImagePullBackOff", ""),
            Reason::ImagePullFailed,
            "set another image in spec.image or",
        ),
        (waiting("hold-ports", "ImagePullBackOff", ""), Reason::ImagePullFailed, "set another image in spec.image or"),
        (
            waiting("hold-ports", "RunContainerError", "no such file"),
            Reason::ContainerFailed,
            "the container hold-ports of pod graph-1 cannot start",
        ),
        (
            ended(1, "no module"),
            Reason::CrashLooping,
            "the backend in pod graph-1 ended with code 1 with the message: “no module”; correct spec.backend.command",
        ),
        (
            ended(1, "PermissionError: Permission denied"),
            Reason::CrashLooping,
            "spec.backend.runAsUser to the user of its image",
        ),
        (
            ended(1, "Read-only file system"),
            Reason::CrashLooping,
            "it writes to in spec.backend.writableDirs, or see kubectl logs --previous -n productivity graph-1 -c backend",
        ),
        (ended(128, shim), Reason::ContainerFailed, "with noexec, so the shim"),
        (waiting("backend", "RunContainerError", shim), Reason::ContainerFailed, "with noexec, so the shim"),
        (
            waiting("backend", "CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
            Reason::ContainerFailed,
            "of the image in spec.backend.runAsUser",
        ),
        (
            waiting("backend", "CreateContainerConfigError", "secret \"graph-backend\" not found"),
            Reason::ContainerFailed,
            "the container backend of pod graph-1 cannot start: CreateContainerConfigError: “secret",
        ),
        (
            waiting("istio-init", "CrashLoopBackOff", "back-off"),
            Reason::ContainerFailed,
            "the container istio-init of pod",
        ),
        (waiting("backend", "PodInitializing", ""), Reason::Progressing, "1 of 2"),
        (json!({"name": "install-shim", "state": {"terminated": {"exitCode": 0}}}), Reason::Progressing, "1 of 2"),
    ] {
        assert_no(&with(container), reason, told);
    }
}
