//! Tests that third-party kinds can be defined, each by itself, on a control plane without them.

use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::Discovery;
use serde_json::json;
use testbed::definitions::{cert_manager, define, gateway_api, prometheus_operator};

use crate::{control_plane, namespace};

#[tokio::test]
async fn third_party_kinds_are_served_and_validated_once_they_are_defined() {
    let client = control_plane().client().unwrap();
    let all = [gateway_api().unwrap(), cert_manager().unwrap(), prometheus_operator().unwrap()].concat();
    define(&client, &all).await.unwrap();
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    for (group, version, kind) in [
        ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
        ("gateway.networking.k8s.io", "v1", "ListenerSet"),
        ("cert-manager.io", "v1", "Certificate"),
        ("monitoring.coreos.com", "v1", "ServiceMonitor"),
    ] {
        assert!(discovery.resolve_gvk(&GroupVersionKind::gvk(group, version, kind)).is_some(), "{kind}");
    }

    let namespace = namespace().await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"));
    let routes: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
    let route = |timeout: &str| {
        let spec = json!({ "rules": [{ "timeouts": { "request": timeout } }] });
        DynamicObject::new("route", &kind).data(json!({ "spec": spec }))
    };
    let refused = routes.create(&PostParams::default(), &route("soon")).await.unwrap_err();
    assert!(refused.to_string().contains("spec.rules[0].timeouts.request"), "{refused}");
    routes.create(&PostParams::default(), &route("10s")).await.unwrap();
}
