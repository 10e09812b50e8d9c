//! The pod's own service account, for its requests to the API server. A kubelet mounts it at a fixed path, and sets
//! variables with the address of the API server; clients find both. A process has no such path. It gets a kubeconfig
//! file with the same content, and `KUBECONFIG`.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;
use serde_json::json;

/// Mount path of the volume that the API server adds to pods with a mounted token.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Files of the account of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Folder behind the mount: the token, which is renewed there, and the authority of the API server.
    volume: PathBuf,
}

impl Account {
    /// Returns the account of the container, if it has one. `volumes` is the folder with the pod's volumes by name.
    pub(super) fn of(container: &Container, volumes: &Path) -> Option<Self> {
        let mounts = container.volume_mounts.iter().flatten();
        let mount = mounts.into_iter().find(|mount| mount.mount_path.trim_end_matches('/') == MOUNT)?;
        Some(Self { volume: volumes.join(&mount.name) })
    }

    /// Path of the kubeconfig file, beside the volume.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.volume.with_extension("kubeconfig")
    }

    /// Writes the kubeconfig file, for the API server at this address.
    pub(super) fn write(&self, server: &str, namespace: &str) -> io::Result<()> {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "own", "cluster": { "server": server, "certificate-authority": self.volume.join("ca.crt") } }],
            "users": [{ "name": "own", "user": { "tokenFile": self.volume.join("token") } }],
            "contexts": [{ "name": "own", "context": { "cluster": "own", "user": "own", "namespace": namespace } }],
            "current-context": "own",
        });
        std::fs::write(self.kubeconfig(), kubeconfig.to_string())
    }
}
