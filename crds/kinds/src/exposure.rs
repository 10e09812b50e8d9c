//! `spec.exposure`: how clients outside the cluster reach the server.

use std::collections::BTreeMap;

use kube::KubeSchema;
use mcp_entra_policy::ORIGIN_PATTERN;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The way from outside the cluster to the server: by a Gateway or an Ingress, and never without TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.gateway) != has(self.ingress)", "exactly one of gateway and ingress"))]
#[x_kube(validation = (
    "!has(self.tls.terminatedByGateway) || has(self.gateway)",
    "tls.terminatedByGateway goes with gateway; with ingress, name tls.issuerRef or tls.secretName"
))]
#[x_kube(validation = (
    "!has(self.gateway) || !has(self.tls.terminatedByGateway) || self.gateway.parentRefs.all(parent, has(parent.sectionName))",
    "with tls.terminatedByGateway, each of gateway.parentRefs names its HTTPS listener in sectionName: a route that names none is served by plain HTTP listeners, too"
))]
#[x_kube(validation = (
    "!has(self.gateway) || has(self.tls.terminatedByGateway) || (self.gateway.parentRefs.size() == 1 && !has(self.gateway.parentRefs[0].sectionName))",
    "with tls.issuerRef or tls.secretName, gateway.parentRefs names one Gateway and no sectionName: the server brings a listener of its own"
))]
#[x_kube(validation = (
    "!has(self.requestTimeout) || has(self.gateway)",
    "requestTimeout goes with gateway; with ingress, name the annotation of its controller in ingress.annotations"
))]
pub struct Exposure {
    /// Host name that clients connect to.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub host: String,
    /// Path of the MCP endpoint on that host.
    #[schemars(length(min = 2, max = 128), regex(pattern = "^(/[A-Za-z0-9_~-]+)+$"))]
    #[serde(default = "default_path")]
    pub path: String,
    /// Origins whose pages may call the server from a browser, besides the host's own: `https://host[:port]`, or
    /// `http://localhost:port` for a program on the user's machine, as the MCP inspector is.
    #[schemars(length(max = 16), inner(length(max = 272), regex(pattern = ORIGIN_PATTERN)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_origins: Vec<String>,
    /// Exposure by Gateway API: an HTTPRoute at Gateways that somebody else runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayExposure>,
    /// Exposure by an Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressExposure>,
    /// Time that the Gateways give each request, as `90s`; `0s` sets no limit. Absent: no limit where the class of
    /// every Gateway lists the feature HTTPRouteRequestTimeout, and the Gateway's default elsewhere.
    #[schemars(length(max = 32), regex(pattern = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<String>,
    /// Where the certificate comes from.
    pub tls: Tls,
}

/// The path of the MCP endpoint where `spec.exposure` names none, and where nothing is exposed.
pub const DEFAULT_PATH: &str = "/mcp";

fn default_path() -> String {
    DEFAULT_PATH.to_owned()
}

/// Gateways that lead to the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayExposure {
    /// The Gateways; each must allow routes (or, with a listener of the server's own, ListenerSets) of this namespace.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<GatewayReference>,
}

/// A Gateway, or one listener of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayReference {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Absent: the server's.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of its HTTPS listener.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// An Ingress of any class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressExposure {
    /// Class of the Ingress. Absent: the cluster's default class.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Annotations of the Ingress, for its controller. Only those that the operator's own configuration allows: some
    /// controllers run what annotations say.
    #[schemars(extend("maxProperties" = 32))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, AnnotationValue>,
}

/// Value of an annotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct AnnotationValue(#[schemars(length(max = 4096))] pub String);

/// Where the certificate comes from: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.issuerRef) ? 1 : 0) + (has(self.secretName) ? 1 : 0) + (has(self.terminatedByGateway) ? 1 : 0) == 1",
    "exactly one of issuerRef, secretName and terminatedByGateway"
))]
pub struct Tls {
    /// A cert-manager issuer: the server gets a Certificate of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerReference>,
    /// A Secret of type `kubernetes.io/tls` in the server's namespace. The operator never reads it.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// TLS ends at an HTTPS listener of the Gateway, with the certificate that whoever runs the Gateway put there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated_by_gateway: Option<bool>,
}

/// An issuer of cert-manager, or one that cert-manager knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerReference {
    /// Name of the issuer.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `Issuer` of the server's namespace, `ClusterIssuer`, or a kind of `group`.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default = "default_issuer_kind")]
    pub kind: String,
    /// API group of the kind.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default = "default_issuer_group")]
    pub group: String,
}

fn default_issuer_kind() -> String {
    "Issuer".to_owned()
}

fn default_issuer_group() -> String {
    "cert-manager.io".to_owned()
}
