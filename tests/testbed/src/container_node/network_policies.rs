//! kube-network-policies, which enforces NetworkPolicies. The kernel asks it about the first packet of each
//! connection to or from a pod. The kernel drops such packets while it does not run.
//!
//! It can also make the rules for these questions. They need nftables' `queue` expression, which many kernels lack
//! (`CONFIG_NFT_QUEUE`). The node therefore makes the same rules with iptables.

use std::path::Path;

use super::{PODS, launch, run};
use crate::control_plane::{ControlPlane, NODE};
use crate::programs::{GoPrograms, NETWORK_POLICIES};
use crate::supervisor::{Child, Supervisor};

/// The queue of packets that kube-network-policies reads.
const QUEUE: &str = "100";

/// Rules of the table `mangle`. Packets in it have the addresses of pods instead of those of Services.
const RULES: [&[&str]; 4] = [
    // Traffic of the node itself, such as the kubelet's probes.
    &["-m", "owner", "--uid-owner", "0", "-j", "RETURN"],
    &["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "RETURN"],
    &["-s", PODS, "-j", "NFQUEUE", "--queue-num", QUEUE],
    &["-d", PODS, "-j", "NFQUEUE", "--queue-num", QUEUE],
];

pub(super) async fn start(
    supervisor: &Supervisor,
    folder: &Path,
    control_plane: &ControlPlane,
) -> anyhow::Result<Child> {
    for rule in RULES {
        run("iptables", &[&["-w", "-t", "mangle", "-A", "POSTROUTING"], rule].concat()).await?;
    }
    let programs = GoPrograms::find_or_build(supervisor, &NETWORK_POLICIES).await?;
    let kubeconfig = control_plane.kubeconfig();
    let arguments = [format!("--kubeconfig={}", kubeconfig.display()), format!("--node={NODE}")];
    launch(supervisor, folder, programs.path("network-policies"), arguments).await
}
