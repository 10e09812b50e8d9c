//! Control plane with the kinds and the operator's rights, as in an installation.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde_json::json;
use testbed::chart::{self, OPERATOR};
use testbed::control_plane::{AuditLog, ControlPlane};
use testbed::stack::repository;
use testbed::supervisor::Supervisor;

/// User of the operator, as in the chart.
pub(super) const USER: &str = "system:serviceaccount:mcp-entra-system:mcp-entra-operator";

/// Control plane with an installed operator.
pub(super) struct Cluster {
    plane: ControlPlane,
    pub(super) supervisor: Supervisor,
    /// Kubeconfig of the operator.
    pub(super) kubeconfig: PathBuf,
}

impl Cluster {
    pub(super) async fn start(supervisor: Supervisor) -> anyhow::Result<Self> {
        let plane = ControlPlane::start(&supervisor).await?;
        let (namespace, name) = OPERATOR;
        let kubectl = Kubectl { plane: &plane, folder: supervisor.folder() };
        kubectl.run(&["create", "namespace", namespace]).await?;
        kubectl.run(&["apply", "--server-side", "-f", &repository("crds/yaml")]).await?;
        let rights = supervisor.folder().join("rights.json");
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": chart::rights(&supervisor, &[]).await?});
        std::fs::write(&rights, objects.to_string())?;
        kubectl.run(&["apply", "--server-side", "-f", &rights.display().to_string()]).await?;
        let established = ["wait", "--for=condition=Established", "--timeout=60s", "-f", &repository("crds/yaml")];
        kubectl.run(&established).await?;
        let kubeconfig = plane.kubeconfig_for_service_account(namespace, name).await?;
        Ok(Self { plane, supervisor, kubeconfig })
    }

    /// Returns a client with the rights of the cluster administrator.
    pub(super) fn client(&self) -> anyhow::Result<kube::Client> {
        self.plane.client()
    }

    pub(super) fn audit(&self) -> AuditLog {
        self.plane.audit()
    }
}

struct Kubectl<'a> {
    plane: &'a ControlPlane,
    folder: &'a Path,
}

impl Kubectl<'_> {
    async fn run(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = tokio::process::Command::new(self.plane.kubectl())
            .arg("--kubeconfig")
            .arg(self.plane.kubeconfig())
            .args(arguments)
            // Without this, discovery is cached below HOME and stays there.
            .env("KUBECACHEDIR", self.folder.join("kubectl"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(crate::until::PATIENCE, output).await.context("kubectl does not end")??;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}
