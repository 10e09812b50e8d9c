//! Kinds of Gateway API, with the fields that the edge reads. The API server has set the defaults.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(CustomResource, Debug, Clone, Serialize, Deserialize)]
#[kube(group = "gateway.networking.k8s.io", version = "v1", kind = "GatewayClass", plural = "gatewayclasses")]
#[kube(schema = "disabled", status = "Value")]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayClassSpec {
    pub(crate) controller_name: String,
}

#[derive(CustomResource, Debug, Clone, Serialize, Deserialize)]
#[kube(group = "gateway.networking.k8s.io", version = "v1", kind = "Gateway", plural = "gateways")]
#[kube(namespaced, schema = "disabled", status = "Value")]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewaySpec {
    pub(crate) gateway_class_name: String,
    #[serde(default)]
    pub(crate) listeners: Vec<ListenerSpec>,
    pub(crate) allowed_listeners: Option<Allowed>,
}

#[derive(CustomResource, Debug, Clone, Serialize, Deserialize)]
#[kube(group = "gateway.networking.k8s.io", version = "v1", kind = "ListenerSet", plural = "listenersets")]
#[kube(namespaced, schema = "disabled", status = "Value")]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerSetSpec {
    pub(crate) parent_ref: ObjectRef,
    #[serde(default)]
    pub(crate) listeners: Vec<ListenerSpec>,
}

#[derive(CustomResource, Debug, Clone, Serialize, Deserialize)]
#[kube(group = "gateway.networking.k8s.io", version = "v1", kind = "HTTPRoute", plural = "httproutes")]
#[kube(namespaced, schema = "disabled", status = "Value")]
#[serde(rename_all = "camelCase")]
pub(crate) struct HTTPRouteSpec {
    #[serde(default)]
    pub(crate) parent_refs: Vec<ParentRef>,
    #[serde(default)]
    pub(crate) hostnames: Vec<String>,
    #[serde(default)]
    pub(crate) rules: Vec<RouteRule>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerSpec {
    pub(crate) name: String,
    pub(crate) hostname: Option<String>,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) tls: Option<ListenerTls>,
    pub(crate) allowed_routes: Option<AllowedRoutes>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerTls {
    pub(crate) mode: Option<String>,
    #[serde(default)]
    pub(crate) certificate_refs: Vec<ObjectRef>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct AllowedRoutes {
    pub(crate) namespaces: Option<Namespaces>,
    pub(crate) kinds: Option<Vec<ObjectKind>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Allowed {
    pub(crate) namespaces: Option<Namespaces>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    /// `All`, `Same`, `Selector`, `None`.
    pub(crate) from: Option<String>,
    pub(crate) selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectKind {
    pub(crate) group: Option<String>,
    pub(crate) kind: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ObjectRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParentRef {
    #[serde(flatten)]
    pub(crate) object: ObjectRef,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) section_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteRule {
    #[serde(default)]
    pub(crate) matches: Vec<RouteMatch>,
    #[serde(default)]
    pub(crate) filters: Vec<Value>,
    #[serde(default)]
    pub(crate) backend_refs: Vec<BackendRef>,
    pub(crate) timeouts: Option<Timeouts>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteMatch {
    pub(crate) path: Option<PathMatch>,
    pub(crate) method: Option<String>,
    #[serde(default)]
    pub(crate) headers: Vec<Value>,
    #[serde(default)]
    pub(crate) query_params: Vec<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PathMatch {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) value: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BackendRef {
    #[serde(flatten)]
    pub(crate) object: ObjectRef,
    pub(crate) port: Option<i32>,
    pub(crate) weight: Option<i32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Timeouts {
    pub(crate) request: Option<String>,
}

/// Group of these kinds.
pub(crate) const GROUP: &str = "gateway.networking.k8s.io";

impl ObjectRef {
    /// Returns whether the reference is to this kind. `default` is the kind of a reference without one.
    pub(crate) fn is(&self, group: &str, kind: &str, default: (&str, &str)) -> bool {
        self.group.as_deref().unwrap_or(default.0) == group && self.kind.as_deref().unwrap_or(default.1) == kind
    }

    /// Returns the namespace of the reference, for an object of namespace `own`.
    pub(crate) fn namespace<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(own)
    }
}
