//! Tests of pods that do not start, or are missing: the message helps, and Ready is False meanwhile.

use std::time::{Duration, Instant};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::api::PostParams;
use mcp_entra_crds::McpServer;
use serde_json::{Value, json};

use crate::harness::{Space, find, mk_server, until};

/// Longest time until the status reports that a server no longer serves.
const SECONDS: Duration = Duration::from_secs(10);

/// A server that becomes Ready as soon as its pods are.
fn mk_hidden() -> Value {
    let mut server = mk_server();
    server["spec"].as_object_mut().unwrap().remove("exposure");
    server
}

/// Waits until Available and Ready report the missing pods, and returns the message.
async fn trouble(space: &Space, reason: &str) -> Condition {
    let available = space.condition("Available", "False", reason).await;
    let ready = space.condition("Ready", "False", reason).await;
    assert_eq!(ready.message, available.message);
    available
}

/// Makes a pod of the Deployment running, ready and healthy, and waits until the server is Ready.
async fn made_ready(space: &Space) -> String {
    let pod = space.bound_pod().await;
    space.runs(&pod).await.enforces(&space.policy().await);
    space.condition("Ready", "True", "Ready").await;
    pod
}

/// Returns the status of a pod whose only container is in this state, as a kubelet writes it.
fn not_ready(state: &Value, last_state: &Value) -> Value {
    let unready = |type_: &str| {
        json!({"type": type_, "status": "False", "reason": "ContainersNotReady",
               "message": "containers with unready status: [server]"})
    };
    json!({
        "phase": "Pending",
        "conditions": [unready("Ready"), unready("ContainersReady"), {"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [{
            "name": "server", "image": "registry.example/mcp-entra-server:test", "imageID": "", "ready": false,
            "started": false, "restartCount": 3, "state": state, "lastState": last_state,
        }],
    })
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": message}})
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_named_and_reported_once_for_any_number_of_attempts() {
    let space = Space::new().await;
    space.apply(mk_hidden()).await;
    let pod = space.bound_pod().await;
    let tried = waiting("ErrImagePull", "failed to pull and unpack image: failed to resolve reference: 403 Forbidden");
    space.kubelet_says(&pod, not_ready(&tried, &json!({}))).await;
    let failed = trouble(&space, "ImagePullFailed").await;
    let image = format!("pod {pod} cannot pull the image registry.example/mcp-entra-server:test: push it");
    assert!(failed.message.contains(&image), "{}", failed.message);
    assert!(failed.message.contains(&format!("kubectl describe pod -n {} {pod}", space.name)), "{}", failed.message);

    space.quiet().await;
    let mark = space.mark();
    let backing_off = waiting("ImagePullBackOff", "Back-off pulling image: 403 Forbidden");
    for state in [&backing_off, &tried, &backing_off] {
        space.kubelet_says(&pod, not_ready(state, &json!({}))).await;
    }
    space.quiet().await;
    assert_eq!(space.writes(mark).await, []);
    space.runs(&pod).await.enforces(&space.policy().await);
    space.condition("Ready", "True", "Ready").await;
}

#[tokio::test]
async fn a_crash_is_reported_with_the_last_line_of_the_server() {
    let space = Space::new().await;
    space.apply(mk_hidden()).await;
    let pod = space.bound_pod().await;
    let log = "2026-11-25T09:00:00.000000Z  INFO starting\n2026-11-25T09:00:00.100000Z ERROR AZURE_CLIENT_SECRET is set; remove it\n";
    let ended = json!({"terminated": {
        "exitCode": 2, "reason": "Error", "message": log, "containerID": "containerd://1",
        "startedAt": "2026-11-25T09:00:00Z", "finishedAt": "2026-11-25T09:00:01Z",
    }});
    let backing_off = waiting("CrashLoopBackOff", "back-off 40s restarting failed container");
    space.kubelet_says(&pod, not_ready(&backing_off, &ended)).await;
    let failed = trouble(&space, "CrashLooping").await;
    let said = format!(
        "pod {pod} ended with code 2 with the message: “ERROR AZURE_CLIENT_SECRET is set; remove it”; see kubectl logs"
    );
    assert!(failed.message.contains(&said), "{}", failed.message);
    assert!(
        failed.message.ends_with(&format!("kubectl logs --previous -n {} {pod}", space.name)),
        "{}",
        failed.message
    );
}

#[tokio::test]
async fn pods_that_pod_security_refuses_are_reported_with_the_field_that_causes_it() {
    let space = Space::new().await;
    space.label("pod-security.kubernetes.io/enforce", Some("restricted")).await;
    let mut server = mk_hidden();
    let unconfined = "container.apparmor.security.beta.kubernetes.io/server";
    server["spec"]["podTemplate"] = json!({"annotations": {unconfined: "unconfined"}});
    space.apply(server).await;
    let refused = trouble(&space, "PodSecurityViolated").await;
    assert!(refused.message.contains("violates PodSecurity \"restricted"), "{}", refused.message);
    assert!(refused.message.contains("remove what spec.podTemplate adds"), "{}", refused.message);

    space.edit::<McpServer>("graph", json!({"spec": {"podTemplate": null}})).await;
    made_ready(&space).await;
}

/// Waits until pods cannot be created in the namespace, for this reason.
async fn none_is_created(space: &Space, why: &str) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "tried"}, "spec": {"containers": [{"name": "tried", "image": "x"}]},
    }))
    .unwrap();
    let tried = PostParams { dry_run: true, ..PostParams::default() };
    until(&format!("pods are refused: {why}"), async || {
        let created = space.api::<Pod>().create(&tried, &pod).await;
        created.is_err_and(|error| error.to_string().contains(why))
    })
    .await;
}

#[tokio::test]
async fn pods_that_an_admission_policy_refuses_are_reported_with_its_message() {
    let space = Space::new().await;
    space.refuse("", "pods", "false", "ask the night watch").await;
    none_is_created(&space, "ask the night watch").await;
    space.apply(mk_hidden()).await;
    let refused = trouble(&space, "AdmissionRefused").await;
    assert!(refused.message.contains("ask the night watch”; correct the policy or webhook"), "{}", refused.message);

    space.refuse_no_longer("pods").await;
    made_ready(&space).await;
}

#[tokio::test]
async fn pods_that_wait_for_an_unavailable_webhook_are_reported_as_refused_at_admission() {
    let space = Space::new().await;
    let down = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let name = format!("{}.down.example", space.name);
    space
        .apply_to_cluster(&json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": name, "clientConfig": {"url": format!("https://{down}/")}, "failurePolicy": "Fail",
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name}},
                "sideEffects": "None", "admissionReviewVersions": ["v1"],
            }],
        }))
        .await;
    none_is_created(&space, "failed calling webhook").await;
    space.apply(mk_hidden()).await;
    let refused = trouble(&space, "AdmissionRefused").await;
    assert!(refused.message.contains(&format!("failed calling webhook \"{name}\"")), "{}", refused.message);
}

#[tokio::test]
async fn a_server_without_pods_becomes_unready_within_seconds_and_ready_again_with_new_ones() {
    let space = Space::new().await;
    space.apply(mk_hidden()).await;
    let first = made_ready(&space).await;
    let (gone, start) = (first.clone(), Instant::now());
    space.kill(&gone).await;
    space.condition("Available", "False", "Unschedulable").await;
    let ready = space.condition("Ready", "False", "Unschedulable").await;
    assert!(start.elapsed() < SECONDS, "{:?}", start.elapsed());
    assert!(ready.message.starts_with("0 of 1 pods are ready"), "{}", ready.message);
    let second = made_ready(&space).await;
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_server_with_unready_pods_becomes_unready_within_seconds() {
    let space = Space::new().await;
    space.apply(mk_hidden()).await;
    let pod = made_ready(&space).await;
    let start = Instant::now();
    // Status of pods on a node that no longer answers.
    let lost = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "NodeNotReady"}]});
    space.kubelet_says(&pod, lost).await;
    trouble(&space, "Progressing").await;
    assert!(start.elapsed() < SECONDS, "{:?}", start.elapsed());
    let conditions = space.get::<McpServer>("graph").await.unwrap().status.unwrap().conditions;
    for type_ in ["FederationReady", "AuthorizationReady"] {
        assert_eq!(find(&conditions, type_).unwrap().status, "Unknown", "nothing vouches for it");
    }
}
