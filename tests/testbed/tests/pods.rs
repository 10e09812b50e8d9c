//! Tests of killing a pod, and of its account at the API server.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::node::{Bed, container, phase, shell};
use crate::{control_plane, until};

#[tokio::test]
async fn a_killed_pod_gets_no_sigterm_and_no_restart_and_its_neighbour_continues() {
    let bed = Bed::start().await;
    let polite = shell("trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done");
    for name in ["killed", "neighbour"] {
        bed.create_pod(name, json!({ "containers": [polite.clone()] })).await;
        until("the trap is set", async || bed.node.logs(&bed.namespace, name).is_ok_and(|log| log == "up\n")).await;
    }
    bed.node.kill(&bed.namespace, "killed").unwrap();
    let exit_code = |pod: &Pod| container(pod)?.state.as_ref()?.terminated.as_ref().map(|end| end.exit_code);
    let killed = bed.until_pod("killed", "has ended", |pod| exit_code(pod) == Some(137)).await;
    assert_eq!(container(&killed).unwrap().restart_count, 0);
    assert_eq!(bed.node.logs(&bed.namespace, "killed").unwrap(), "up\n");
    // The log may exist before the status. After its end, the pod does not run any more.
    bed.until_pod("neighbour", "runs on", |pod| phase(pod) == "Running").await;
    bed.stop().await;
}

#[tokio::test]
async fn a_pod_calls_the_api_server_as_its_own_account_unless_it_has_no_token() {
    let bed = Bed::start().await;
    let kubectl = control_plane().kubectl().display().to_string();
    let ask = format!("KUBECACHEDIR=$PWD {kubectl} auth whoami || echo nobody");
    for (name, mounted) in [("known", true), ("unknown", false)] {
        let spec = json!({
            "containers": [shell(&ask)], "restartPolicy": "Never", "automountServiceAccountToken": mounted,
        });
        bed.create_pod(name, spec).await;
        bed.until_pod(name, "has ended", |pod| phase(pod) == "Succeeded").await;
    }
    let account = format!("system:serviceaccount:{}:default", bed.namespace);
    let known = bed.node.logs(&bed.namespace, "known").unwrap();
    assert!(known.contains(&account), "{known}");
    let unknown = bed.node.logs(&bed.namespace, "unknown").unwrap();
    assert!(unknown.contains("nobody"), "{unknown}");
    bed.stop().await;
}
