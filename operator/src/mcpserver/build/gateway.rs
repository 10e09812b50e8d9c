//! Builds the HTTPRoute, which routes the published paths from Gateways to the server, and the ListenerSet, which adds
//! a listener with the server's certificate to a Gateway. The operator never writes Gateways.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DynamicObject, TypeMeta};
use mcp_entra_crds::GatewayReference;
use serde_json::{Value, json};

use super::{
    paths::{Published, published},
    service::PORT,
};
use crate::{
    mcpserver::validate::exposure::{Exposed, exposes},
    objects::{child::ChildKind, names::EXPOSES, owner::Owner},
    ownership::Held,
};

/// The name of the listener in a ListenerSet.
const LISTENER: &str = "https";

/// Returns the Gateway as a parent of a route or ListenerSet.
pub(super) fn parent_of(gateway: &GatewayReference) -> Value {
    let GatewayReference { name, namespace, section_name } = gateway;
    let mut parent = json!({"group": group(), "kind": "Gateway", "name": name, "namespace": namespace,
                            "sectionName": section_name});
    if let Some(members) = parent.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    parent
}

/// Returns the listener of the owner's ListenerSet as a parent of a route.
pub(super) fn own_listener_of(owner: &Owner) -> Value {
    let kind = ChildKind::ListenerSet;
    json!({"group": group(), "kind": kind.kind(), "name": kind.name(&owner.name), "sectionName": LISTENER})
}

pub(super) fn http_route(owner: &Owner, exposed: &Exposed, held: &Held, parents: &[Value]) -> DynamicObject {
    let kind = ChildKind::HttpRoute;
    let matches: Vec<Value> = published(exposed, held)
        .into_iter()
        .map(|published| match published {
            Published::Below(path) => json!({"path": {"type": "PathPrefix", "value": path}}),
            Published::Exactly(path) => json!({"path": {"type": "Exact", "value": path}}),
        })
        .collect();
    let mut rule = json!({
        "matches": matches,
        "backendRefs": [{"name": ChildKind::Service.name(&owner.name), "port": PORT}],
    });
    if let (Some(time), Some(rule)) = (&exposed.request_timeout, rule.as_object_mut()) {
        rule.insert("timeouts".to_owned(), json!({"request": time}));
    }
    object(
        exposing_metadata(owner, exposed, kind),
        kind,
        json!({"parentRefs": parents, "hostnames": [exposed.host], "rules": [rule]}),
    )
}

pub(super) fn listener_set(
    owner: &Owner,
    exposed: &Exposed,
    gateway: &GatewayReference,
    secret_name: &str,
) -> DynamicObject {
    let listener = json!({
        "name": LISTENER,
        "hostname": exposed.host,
        "port": 443,
        "protocol": "HTTPS",
        "tls": {"mode": "Terminate", "certificateRefs": [{"group": "", "kind": "Secret", "name": secret_name}]},
        "allowedRoutes": {"namespaces": {"from": "Same"}},
    });
    object(
        exposing_metadata(owner, exposed, ChildKind::ListenerSet),
        ChildKind::ListenerSet,
        json!({"parentRef": parent_of(gateway), "listeners": [listener]}),
    )
}

/// Builds an object of a kind without a Rust type.
pub(super) fn object(metadata: ObjectMeta, kind: ChildKind, spec: Value) -> DynamicObject {
    let types = TypeMeta { api_version: kind.api_version(), kind: kind.kind().to_owned() };
    DynamicObject { types: Some(types), metadata, data: json!({"spec": spec}) }
}

/// Returns the metadata of an exposing child. An annotation contains the host, and the path if the child has one.
pub(super) fn exposing_metadata(owner: &Owner, exposed: &Exposed, kind: ChildKind) -> ObjectMeta {
    let mut metadata = owner.child_metadata(kind);
    let from = exposes(kind, &exposed.host, &exposed.path);
    metadata.annotations.get_or_insert_default().insert(EXPOSES.to_owned(), from);
    metadata
}

fn group() -> String {
    ChildKind::HttpRoute.api_resource().group
}
