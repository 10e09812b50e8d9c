//! The pod's own service account, for its calls to the API server. A kubelet mounts it at a fixed path, and names the API
//! server by variables that go with it; clients find both unasked. A process has no such path: it gets a kubeconfig file
//! that says the same, and `KUBECONFIG`.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;
use serde_json::json;

/// Where the volume is mounted that the API server adds to pods whose token is mounted.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What stands for the account of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Behind the mount: the token, which is renewed there, and the authority of the API server.
    volume: PathBuf,
}

impl Account {
    /// The account that the container has, if it has one; `volumes` is the folder that holds the pod's volumes by name.
    pub(super) fn of(container: &Container, volumes: &Path) -> Option<Self> {
        let mounts = container.volume_mounts.iter().flatten();
        let mount = mounts.into_iter().find(|mount| mount.mount_path.trim_end_matches('/') == MOUNT)?;
        Some(Self { volume: volumes.join(&mount.name) })
    }

    /// The kubeconfig file, beside the volume.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.volume.with_extension("kubeconfig")
    }

    /// Writes the kubeconfig file, for the API server at that address.
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
