//! Errors of `preview`.

use std::time::Duration;

use crate::commands::manifests::ManifestError;

/// The longest time that the cluster is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The reason why there is nothing to preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The manifests cannot be used.
    #[error(transparent)]
    Manifests(#[from] ManifestError),
    /// No cluster is configured.
    #[error("there is no cluster to ask ({0}); set KUBECONFIG, or name manifests with --file")]
    Config(String),
    /// The cluster does not answer, or not this.
    #[error(
        "{action}: {source}; without it the preview would be wrong: ask for the right, or name manifests with --file"
    )]
    Kubernetes {
        /// The action that failed.
        action: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// The cluster does not answer in time.
    #[error("the cluster did not answer within {} s; check the network, or name manifests with --file", PATIENCE.as_secs())]
    Deadline,
    /// The policy cannot be written as JSON.
    #[error("the policy cannot be compiled ({0}); report this as a defect")]
    Json(#[from] serde_json::Error),
    /// There is no such server.
    #[error("there is no McpServer {namespace}/{name}; there are: {found}")]
    NoServer {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// Those that there are.
        found: String,
    },
}
