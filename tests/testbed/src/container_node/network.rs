//! The node's network: its address, a link for each pod, and names.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::json;

use super::{ADDRESS, PODS, run};
use crate::namespaces;

/// Programs of the machine that the node uses, and their Debian packages.
const TOOLS: [(&str, &str); 5] = [
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/sbin/ip", "iproute2"),
];

/// Checks that the machine has the programs that the node uses.
pub(super) fn ensure_tools() -> anyhow::Result<()> {
    let missing: Vec<&str> =
        TOOLS.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package).collect();
    ensure!(
        missing.is_empty(),
        "a real node needs missing programs; on Debian: apt-get install --no-install-recommends {}",
        missing.join(" ")
    );
    Ok(())
}

pub(super) async fn prepare(folder: &Path, host_names: &[&str]) -> anyhow::Result<()> {
    // Without this check, the machine's own network could be changed.
    namespaces::control_group()?;
    for line in [
        "link set lo up",
        "link add node type bridge",
        &format!("address add {ADDRESS}/24 dev node"),
        "link set node up",
        // Programs find their own address by the default route. This one leads nowhere.
        "route add default dev node",
    ] {
        run("ip", &line.split(' ').collect::<Vec<_>>()).await?;
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("let pods reach each other")?;

    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    for name in host_names {
        writeln!(hosts, "{ADDRESS} {name}")?;
    }
    for (file, content) in [("hosts", hosts), ("resolv.conf", format!("nameserver {ADDRESS}\n"))] {
        let ours = folder.join(file);
        std::fs::write(&ours, content).with_context(|| format!("write {}", ours.display()))?;
        namespaces::replace_file(&format!("/etc/{file}"), &ours)?;
    }
    Ok(())
}

/// Writes containerd's network configuration of pods.
pub(super) fn configure(folder: &Path) -> anyhow::Result<()> {
    // Each pod has its own link to the node. Packets between pods are therefore routed, and pass the node's packet
    // filter. Packets over a bridge pass it only if the machine has the module br_netfilter.
    let routed = json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [
            {
                "type": "ptp", "ipMasq": true,
                "ipam": {
                    "type": "host-local", "dataDir": folder.join("addresses"),
                    "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    let networks = folder.join("networks");
    std::fs::create_dir(&networks)?;
    std::fs::write(networks.join("10-routed.conflist"), routed.to_string()).context("write the pods' network")
}
