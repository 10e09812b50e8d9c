//! `spec.exposure`: access to the server from outside the cluster.

use std::collections::BTreeMap;

use kube::KubeSchema;
use mcp_entra_policy::ORIGIN_PATTERN;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Access to the server from outside the cluster, by a Gateway or an Ingress. TLS is always required.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.gateway) != has(self.ingress)", "exactly one of gateway and ingress must be set"))]
#[x_kube(validation = (
    "!has(self.tls.terminatedByGateway) || has(self.gateway)",
    "tls.terminatedByGateway is allowed only with gateway; with ingress, set tls.issuerRef or tls.secretName"
))]
#[x_kube(validation = (
    "!has(self.gateway) || !has(self.tls.terminatedByGateway) || self.gateway.parentRefs.all(parent, has(parent.sectionName))",
    "with tls.terminatedByGateway, each of gateway.parentRefs must name an HTTPS listener in sectionName; otherwise plain HTTP listeners would also serve the route"
))]
#[x_kube(validation = (
    "!has(self.gateway) || has(self.tls.terminatedByGateway) || (self.gateway.parentRefs.size() == 1 && !has(self.gateway.parentRefs[0].sectionName))",
    "with tls.issuerRef or tls.secretName, gateway.parentRefs must have one entry without sectionName, since the operator creates a listener for the server"
))]
#[x_kube(validation = (
    "!has(self.requestTimeout) || has(self.gateway)",
    "requestTimeout is allowed only with gateway; with ingress, set the annotation of its controller in ingress.annotations"
))]
pub struct Exposure {
    /// Host name that clients use. Must be a DNS name in lower case.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub host: String,
    /// Path of the MCP endpoint on the host. Must start with a slash and not end with one. Defaults to `/mcp`.
    #[schemars(length(min = 2, max = 128), regex(pattern = "^(/[A-Za-z0-9_~-]+)+$"))]
    #[serde(default = "default_path")]
    pub path: String,
    /// Origins of web pages that may call the server from a browser. The origin of `host` is always allowed. Each entry
    /// is `https://host[:port]`, or `http://localhost:port` for a program on the user's machine, such as the MCP
    /// inspector. At most 16.
    #[schemars(length(max = 16), inner(length(max = 272), regex(pattern = ORIGIN_PATTERN)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_origins: Vec<String>,
    /// Exposure by Gateway API. The operator creates an HTTPRoute for existing Gateways. Exactly one of `gateway` and
    /// `ingress` must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayExposure>,
    /// Exposure by an Ingress, which the operator creates. Exactly one of `gateway` and `ingress` must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressExposure>,
    /// Request timeout of the HTTPRoute, such as `90s`. `0s` means no limit. Allowed only with `gateway`. If absent,
    /// there is no limit if the class of every Gateway supports the feature HTTPRouteRequestTimeout. Otherwise the
    /// Gateway's own default applies.
    #[schemars(length(max = 32), regex(pattern = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<String>,
    /// Source of the TLS certificate. Exactly one of its members must be set.
    pub tls: Tls,
}

/// Path of the MCP endpoint if `spec.exposure` sets none, or is absent.
pub const DEFAULT_PATH: &str = "/mcp";

fn default_path() -> String {
    DEFAULT_PATH.to_owned()
}

/// Gateways that route requests to the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayExposure {
    /// Gateways that the HTTPRoute attaches to. With `tls.terminatedByGateway`, each must allow routes of this
    /// namespace. Otherwise exactly one entry is allowed, and its Gateway must allow ListenerSets of this namespace.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<GatewayReference>,
}

/// Reference to a Gateway, or to one of its listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayReference {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the Gateway. Defaults to the namespace of the McpServer.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of an HTTPS listener of the Gateway. Required with `tls.terminatedByGateway`, otherwise not allowed.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// Settings of the Ingress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressExposure {
    /// Name of the IngressClass. Defaults to the cluster's default class.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Annotations of the Ingress, which its controller reads. Each must be allowed by the operator's configuration,
    /// since some controllers execute the content of annotations. At most 32.
    #[schemars(extend("maxProperties" = 32))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, AnnotationValue>,
}

/// Value of an annotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct AnnotationValue(#[schemars(length(max = 4096))] pub String);

/// Source of the TLS certificate. Exactly one of `issuerRef`, `secretName` and `terminatedByGateway` must be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.issuerRef) ? 1 : 0) + (has(self.secretName) ? 1 : 0) + (has(self.terminatedByGateway) ? 1 : 0) == 1",
    "exactly one of issuerRef, secretName and terminatedByGateway must be set"
))]
pub struct Tls {
    /// Issuer of cert-manager. The operator creates a Certificate for the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerReference>,
    /// Name of a Secret of type `kubernetes.io/tls` in the namespace of the McpServer. The operator never reads it.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Terminates TLS at an existing HTTPS listener of the Gateway, with the certificate of that listener. Allowed only
    /// with `gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated_by_gateway: Option<bool>,
}

/// Reference to an issuer of cert-manager or to an external issuer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerReference {
    /// Name of the issuer.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Kind of the issuer: `Issuer` (in the namespace of the McpServer), `ClusterIssuer`, or a kind of `group`.
    /// Defaults to `Issuer`.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default = "default_issuer_kind")]
    pub kind: String,
    /// API group of the issuer. Defaults to `cert-manager.io`.
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
