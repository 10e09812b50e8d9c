//! CoreDNS, which resolves names of Services for pods.

use std::path::Path;

use anyhow::Context;

use super::{ADDRESS, launch};
use crate::control_plane::ControlPlane;
use crate::programs::{COREDNS, GoPrograms};
use crate::supervisor::{Child, Supervisor};

/// Domain of the cluster's names.
pub(super) const DOMAIN: &str = "cluster.local";

pub(super) async fn start(
    supervisor: &Supervisor,
    folder: &Path,
    control_plane: &ControlPlane,
) -> anyhow::Result<Child> {
    let programs = GoPrograms::find_or_build(supervisor, &COREDNS).await?;
    let kubeconfig = control_plane.kubeconfig();
    let configuration = format!(
        ".:53 {{
  bind {ADDRESS}
  errors
  kubernetes {DOMAIN} in-addr.arpa {{
    kubeconfig {} testbed
    ttl 1
  }}
}}
",
        kubeconfig.display()
    );
    let file = folder.join("Corefile");
    std::fs::write(&file, configuration).context("write CoreDNS's configuration")?;
    let arguments = ["-conf".to_owned(), file.display().to_string()];
    launch(supervisor, folder, programs.path("coredns"), arguments).await
}
