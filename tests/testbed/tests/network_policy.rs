//! Tests that NetworkPolicies apply to the edge and the proxies.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, Patch, PatchParams, PostParams};
use reqwest::{Client, Proxy, StatusCode};
use serde_json::{Value, json};
use testbed::network_policy::egress::EgressProxy;
use testbed::network_policy::{Identity, NetworkPolicies};
use testbed::pod_proxy::PodProxy;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::backend::{Backend, apply};
use crate::edge::simple;
use crate::{control_plane, namespace, until};

/// Creates a pod with the backend's address in the API server, and the label `app`.
async fn pod_of(backend: &Backend, namespace: &str) {
    let pods: Api<Pod> = Api::namespaced(control_plane().client().unwrap(), namespace);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": {
            // The pod has no node: its process is the test itself.
            "nodeSelector": { "nowhere": "true" },
            "containers": [{ "name": "c", "image": "i", "ports": [{ "name": "http", "containerPort": backend.port }] }],
        },
    }))
    .unwrap();
    until("the default service account is there", async || pods.create(&PostParams::default(), &pod).await.is_ok())
        .await;
    let address = backend.pod.to_string();
    let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
    pods.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn policy(namespace: &str, spec: Value) {
    let policies: Api<NetworkPolicy> = Api::namespaced(control_plane().client().unwrap(), namespace);
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "web" }, "spec": spec,
    });
    apply(&policies, "web", policy).await;
}

/// Allows pods of this namespace at the port `http`.
fn from(namespace: &str) -> Value {
    let namespace = json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
    json!({
        "podSelector": { "matchLabels": { "app": "web" } },
        "ingress": [{ "from": [{ "namespaceSelector": namespace }], "ports": [{ "port": "http" }] }],
    })
}

#[tokio::test]
async fn the_edge_reaches_a_pod_only_if_policies_allow_it() {
    let (site, backend) = simple("one").await;
    pod_of(&backend, &site.namespace).await;
    policy(&site.namespace, from("elsewhere")).await;
    site.until_status("/", StatusCode::GATEWAY_TIMEOUT).await;
    let (_, text) = site.answer("/").await;
    assert!(text.contains(&format!("no NetworkPolicy of namespace {}", site.namespace)), "{text}");
    policy(&site.namespace, from("edge")).await;
    site.until_status("/", StatusCode::OK).await;
}

#[tokio::test]
async fn the_pod_proxy_reaches_a_pod_only_if_policies_allow_the_operator() {
    let (namespace, backend) = (namespace().await, Backend::start("pod").await);
    let policies = NetworkPolicies::start(&control_plane().client().unwrap()).await.unwrap();
    let proxy = PodProxy::start_as(policies, Identity::new("mcp-entra-system", "mcp-entra-operator")).await.unwrap();
    let client = Client::builder().proxy(Proxy::all(proxy.url()).unwrap()).build().unwrap();
    let url = format!("http://{}:{}/status", backend.pod, backend.port);
    let status = async || client.get(&url).send().await.unwrap().status();
    assert_eq!(status().await, StatusCode::OK, "no policy selects it");
    pod_of(&backend, &namespace).await;
    policy(&namespace, from("edge")).await;
    until("it is refused", async || status().await == StatusCode::GATEWAY_TIMEOUT).await;
    policy(&namespace, from("mcp-entra-system")).await;
    until("it is allowed", async || status().await == StatusCode::OK).await;
}

#[tokio::test]
async fn an_egress_proxy_opens_only_connections_that_policies_allow() {
    let (namespace, backend) = (namespace().await, Backend::start("outside").await);
    let policies = NetworkPolicies::start(&control_plane().client().unwrap()).await.unwrap();
    let proxy = EgressProxy::start(policies, Identity::new(&namespace, "graph")).await.unwrap();
    let address = proxy.url().trim_start_matches("http://").to_owned();
    let tunnel = async |port: u16| {
        let mut stream = BufReader::new(TcpStream::connect(&address).await.unwrap());
        let target = format!("{}:{port}", backend.pod);
        stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        (line, stream)
    };
    let is_open = async || tunnel(backend.port).await.0.contains(" 200 ");
    assert!(is_open().await, "no policy selects it");
    let to = |port: u16| json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": port }] }] });
    policy(&namespace, to(1)).await;
    until("it is refused", async || tunnel(backend.port).await.0.contains(" 504 ")).await;
    policy(&namespace, to(backend.port)).await;
    until("it is allowed", is_open).await;

    let (_, mut stream) = tunnel(backend.port).await;
    stream.write_all(b"GET /through HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\"path\":\"/through\""), "{answer}");
}
