//! Test that the API server's proxy reaches pods at their announced addresses.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::{control_plane, namespace};

/// Returns the answer of a port of a pod that announces this address, through the API server.
async fn asked_at(address: &str, port: u16) -> kube::Result<Value> {
    let (client, namespace) = (control_plane().client().unwrap(), namespace().await);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let container = json!({"name": "c", "image": "none"});
    // The scheduler leaves a pod of another scheduler alone.
    let pod = json!({"metadata": {"name": "p"}, "spec": {"schedulerName": "none", "containers": [container]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let path = format!("/api/v1/namespaces/{namespace}/pods/p:{port}/proxy/status?full");
    client.request(http::Request::get(path).body(Vec::new()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_proxies_to_a_pod_at_the_address_it_announces() {
    let backend = Backend::start("pod").await;
    let told = asked_at(&backend.pod.to_string(), backend.port).await.unwrap();
    assert_eq!((&told["name"], &told["path"]), (&json!("pod"), &json!("/status?full")));
}
