//! Tests that the API server's proxy reaches pods at their announced addresses, and nothing else.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::backend::{Backend, unused_pod};
use crate::{control_plane, namespace};

/// Returns the answer of a port of a pod that announces this address, through the API server, or kubectl's error.
async fn asked_at(address: &str, port: u16) -> Result<Value, String> {
    let namespace = namespace().await;
    let pods: Api<Pod> = Api::namespaced(control_plane().client().unwrap(), &namespace);
    let container = json!({"name": "c", "image": "none"});
    // The scheduler leaves a pod of another scheduler alone.
    let pod = json!({"metadata": {"name": "p"}, "spec": {"schedulerName": "none", "containers": [container]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let path = format!("/api/v1/namespaces/{namespace}/pods/p:{port}/proxy/status?full=1");
    // The library would repeat a request that gets 503.
    let mut kubectl = Command::new(control_plane().kubectl());
    kubectl.arg("--kubeconfig").arg(control_plane().kubeconfig()).args(["get", "--raw", &path]);
    let output = kubectl.output().await.unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_proxies_to_a_pod_at_the_address_it_announces() {
    let backend = Backend::start("pod").await;
    let told = asked_at(&backend.pod.to_string(), backend.port).await.unwrap();
    assert_eq!((&told["name"], &told["path"]), (&json!("pod"), &json!("/status?full=1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_reaches_neither_a_pod_that_is_gone_nor_another_address() {
    let backend = Backend::start("other").await;
    for (address, port) in [(unused_pod().to_string(), 1), ("10.245.0.1".to_owned(), backend.port)] {
        let error = asked_at(&address, port).await.unwrap_err();
        assert!(error.contains(&format!("{address}:{port}: unknown error general SOCKS server failure")), "{error}");
    }
}
