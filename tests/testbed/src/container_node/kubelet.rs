//! The kubelet, and kube-proxy, which sends traffic for a Service to its pods.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::{ADDRESS, PODS, dns, launch};
use crate::control_plane::{ControlPlane, NODE};
use crate::namespaces::control_group;
use crate::programs::{GoPrograms, NODE as PROGRAMS};
use crate::supervisor::{Child, Supervisor};

pub(super) async fn start(
    supervisor: &Supervisor,
    folder: &Path,
    control_plane: &ControlPlane,
    containerd: &Path,
) -> anyhow::Result<Child> {
    let programs = GoPrograms::find_or_build(supervisor, &PROGRAMS).await?;
    let files = control_plane.folder();
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", containerd.display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", control_group()?),
        // Needed on a machine whose kernel has only control groups of version 1.
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        // This node must not clean up the machine's disk.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": folder.join("pods"),
        "volumePluginDir": folder.join("volume-plugins"),
        "resolvConf": "/etc/resolv.conf",
        "clusterDomain": dns::DOMAIN,
        "clusterDNS": [ADDRESS],
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": files.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": files.join("kubelet.crt"),
        "tlsPrivateKeyFile": files.join("kubelet.key"),
    });
    let file = folder.join("kubelet.yaml");
    std::fs::write(&file, configuration.to_string()).context("write the kubelet's configuration")?;
    let arguments = [
        format!("--config={}", file.display()),
        format!("--kubeconfig={}", files.join("node-node.kubeconfig").display()),
        format!("--hostname-override={NODE}"),
        format!("--node-ip={ADDRESS}"),
        format!("--root-dir={}", folder.join("kubelet").display()),
        format!("--cert-dir={}", folder.join("kubelet-certificates").display()),
    ];
    launch(supervisor, folder, programs.path("kubelet"), arguments).await
}

pub(super) async fn start_proxy(
    supervisor: &Supervisor,
    folder: &Path,
    control_plane: &ControlPlane,
) -> anyhow::Result<Child> {
    let programs = GoPrograms::find_or_build(supervisor, &PROGRAMS).await?;
    let kubeconfig: PathBuf = control_plane.folder().join("kube-proxy.kubeconfig");
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={NODE}"),
        "--proxy-mode=iptables".to_owned(),
        format!("--cluster-cidr={PODS}"),
        // This node must not change the machine's limits.
        "--conntrack-max-per-core=0".to_owned(),
    ];
    launch(supervisor, folder, programs.path("kube-proxy"), arguments).await
}
