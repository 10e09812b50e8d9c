//! Backend of tests for the edge and the proxy: an HTTP server at a pod's address, and the objects that route to it.

use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::any;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::address::Announced;
use tokio_util::task::AbortOnDropHandle;

use crate::control_plane;

/// Answers every path with JSON: its name, the path, and the received headers. `/echo` streams the request's body back.
pub(crate) struct Backend {
    pub(crate) pod: Announced,
    pub(crate) port: u16,
    _task: AbortOnDropHandle<()>,
}

/// Returns an address that no other test of this process has.
pub(crate) fn unused_pod() -> Announced {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [third, fourth] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Announced::new(200 + third, fourth)
}

impl Backend {
    pub(crate) async fn start(name: &'static str) -> Self {
        let pod = unused_pod();
        let listener = tokio::net::TcpListener::bind(pod.dialable(0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().route("/echo", any(echo)).fallback(tell).with_state(name);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { pod, port, _task: AbortOnDropHandle::new(task) }
    }
}

async fn echo(request: Request) -> Body {
    request.into_body()
}

async fn tell(State(name): State<&'static str>, request: Request) -> String {
    let headers: Value = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({ "name": name, "path": request.uri().to_string(), "headers": headers }).to_string()
}

/// Creates or replaces a Service with one port, `http`, and its endpoints.
pub(crate) async fn service(namespace: &str, name: &str, port: u16, endpoints: &[(&str, bool)]) {
    let client = control_plane().client().unwrap();
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": port }] },
    });
    apply(&services, name, service).await;
    let slices: Api<EndpointSlice> = Api::namespaced(client, namespace);
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, ready)| json!({ "addresses": [address], "conditions": { "ready": ready } }))
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": name } },
        "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
        "endpoints": endpoints,
    });
    apply(&slices, name, slice).await;
}

pub(crate) async fn apply<K>(api: &Api<K>, name: &str, object: Value)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
}
