//! Tests that the pod proxy only reaches pods at their announced addresses.

use reqwest::{Client, Proxy, StatusCode};
use serde_json::Value;
use testbed::pod_proxy::PodProxy;

use crate::backend::{Backend, unused_pod};

fn client(proxy: &PodProxy) -> Client {
    Client::builder().proxy(Proxy::all(proxy.url()).unwrap()).build().unwrap()
}

#[tokio::test]
async fn a_pod_is_reached_at_the_address_it_announces() {
    let (proxy, backend) = (PodProxy::start().await.unwrap(), Backend::start("pod").await);
    let url = format!("http://{}:{}/status?full", backend.pod, backend.port);
    let told: Value = client(&proxy).get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(told["name"], "pod");
    assert_eq!(told["path"], "/status?full");
    assert_eq!(told["headers"]["host"], format!("{}:{}", backend.pod, backend.port));
}

#[tokio::test]
async fn another_method_and_another_address_are_refused() {
    let (proxy, backend) = (PodProxy::start().await.unwrap(), Backend::start("pod").await);
    let client = client(&proxy);
    let at = |host: &str| format!("http://{host}:{}/", backend.port);
    let announced = at(&backend.pod.to_string());
    for request in [
        client.post(&announced),
        client.head(&announced),
        client.get(at(&backend.pod.listening().to_string())),
        client.get(at("10.245.0.1")),
        client.get(at("localhost")),
        // A request to the proxy itself, not through it.
        Client::new().get(proxy.url()),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
    let tunnel = client.get(announced.replace("http:", "https:")).send().await;
    assert!(tunnel.is_err(), "{tunnel:?}");
}

#[tokio::test]
async fn a_deleted_pod_is_dialled_on_loopback_and_answered_with_bad_gateway() {
    let proxy = PodProxy::start().await.unwrap();
    let dead = unused_pod();
    let response = client(&proxy).get(format!("http://{dead}:1/")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let text = response.text().await.unwrap();
    assert!(text.contains(&dead.dialable(1).to_string()), "{text}");
}
