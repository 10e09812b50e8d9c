//! What of its pods an McpServer may say.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is added to the pods that the operator builds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Environment variables for the server's container, such as `HTTPS_PROXY`.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = (
        "self.all(variable, !(variable.name in ['AZURE_CLIENT_SECRET', 'AZURE_PASSWORD']) && !variable.name.startsWith('AZURE_CLIENT_CERTIFICATE'))",
        "AZURE_CLIENT_SECRET, AZURE_PASSWORD and AZURE_CLIENT_CERTIFICATE_* are refused: the only credential is the pod's service account token; create a federated credential in Entra instead"
    ))]
    #[x_kube(validation = (
        "self.all(variable, variable.name in ['HTTPS_PROXY', 'https_proxy', 'NO_PROXY', 'no_proxy', 'RUST_LOG', 'TZ'])",
        "may name HTTPS_PROXY, NO_PROXY (or both in lower case), RUST_LOG and TZ; others could change what the server trusts or runs"
    ))]
    pub env: Vec<EnvironmentVariable>,
}

/// An environment variable with a plain value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentVariable {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[-._a-zA-Z][-._a-zA-Z0-9]*$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 4096))]
    #[serde(default)]
    pub value: String,
}
