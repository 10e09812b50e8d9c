//! Errors of `preview`.

use std::time::Duration;

use crate::commands::manifests::ManifestError;

/// The longest wait for the cluster.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The reason why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The manifests cannot be used.
    #[error(transparent)]
    Manifests(#[from] ManifestError),
    /// No cluster is configured.
    #[error("no cluster is configured ({0}); set KUBECONFIG, or give manifests with --file")]
    Config(String),
    /// The cluster does not answer, or answers with an error.
    #[error(
        "{action}: {source}; the preview would be wrong without it: ask for the permission, or give manifests with --file"
    )]
    Kubernetes {
        /// The action that failed.
        action: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// The cluster does not answer in time.
    #[error("the cluster did not answer within {} s; check the network, or give manifests with --file", PATIENCE.as_secs())]
    Deadline,
    /// The policy cannot be written as JSON.
    #[error("the policy cannot be compiled ({0}); report this as a defect")]
    Json(#[from] serde_json::Error),
    /// The server does not exist.
    #[error("there is no McpServer {namespace}/{name}; existing McpServers: {found}")]
    NoServer {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// The existing servers.
        found: String,
    },
}
