//! `spec.exposure`: how clients outside the cluster reach the server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How clients outside the cluster reach the server. There is no exposure without TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
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
    /// Exposure by an Ingress.
    pub ingress: IngressExposure,
    /// Where the certificate comes from.
    pub tls: Tls,
}

/// The path of the MCP endpoint where `spec.exposure` names none, and where nothing is exposed.
pub const DEFAULT_PATH: &str = "/mcp";

fn default_path() -> String {
    DEFAULT_PATH.to_owned()
}

/// An Ingress of any class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressExposure {
    /// Class of the Ingress. Absent: the cluster's default class.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// A Secret of type `kubernetes.io/tls` in the server's namespace. The operator never reads it.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
}
