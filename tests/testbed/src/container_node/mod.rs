//! Kubernetes node whose pods are containers: containerd, a real kubelet, kube-proxy, CoreDNS and an enforcer of
//! NetworkPolicies. It needs root on Linux, and runs in [`crate::namespaces`] of its own. The other node,
//! [`crate::node`], runs pods as processes and needs no root. The two never share a cluster.
//!
//! runc, the CNI plugins, iptables and conntrack come from the machine. Everything else is built from pinned sources.
//!
//! # Differences from a cluster's node
//!
//! - Images are imported from archives. There is no registry, so all other images are missing.
//! - NetworkPolicies are enforced between pods. Traffic between a pod and the node itself is not filtered. The API
//!   server, the edge and the emulated Entra run on the node, so their traffic is not filtered, either.
//! - CoreDNS and the control plane's programs run beside the pods instead of in pods.

mod containerd;
mod dns;
mod kubelet;
mod network;
mod network_policies;
mod pause;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, LogParams};
use kube::runtime::wait::await_condition;

use crate::command_line::CommandLine;
use crate::control_plane::{ControlPlane, NODE};
use crate::namespaces;
use crate::programs::{CONTAINERD, CONTROL_PLANE, COREDNS, GoPrograms, HELM, NETWORK_POLICIES, NODE as NODE_PROGRAMS};
use crate::supervisor::{Child, Command, Supervisor};
use containerd::Containerd;

/// Address of the node, at which its pods reach it.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);
/// Addresses of pods.
const PODS: &str = "10.244.0.0/24";
/// Time until a node is ready. On an idle machine it takes 4 s.
const READY: Duration = Duration::from_secs(60);

/// Running node. It ends with its supervisor, and its pods end with the namespaces.
pub struct ContainerNode {
    containerd: Containerd,
    client: kube::Client,
}

impl ContainerNode {
    /// Builds the missing programs of a node and its control plane.
    ///
    /// # Errors
    /// If a program does not build, or the machine cannot run a node.
    pub async fn build(supervisor: &Supervisor) -> anyhow::Result<()> {
        namespaces::ensure_root()?;
        network::ensure_tools()?;
        for set in [&CONTROL_PLANE, &NODE_PROGRAMS, &CONTAINERD, &COREDNS, &NETWORK_POLICIES, &HELM] {
            GoPrograms::find_or_build(supervisor, set).await?;
        }
        Ok(())
    }

    /// Creates the network for the control plane and the node. Call it once in new namespaces.
    ///
    /// # Errors
    /// If the process does not run in namespaces of its own, or `ip` is missing.
    pub async fn prepare(supervisor: &Supervisor, host_names: &[&str]) -> anyhow::Result<()> {
        network::prepare(supervisor.folder(), host_names).await
    }

    /// Starts a node for this control plane and returns when it is ready. Its programs must be built.
    ///
    /// # Errors
    /// If a package is missing, or one of its programs does not start. The error has the last lines of its log.
    pub async fn start(supervisor: &Supervisor, control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let folder = supervisor.folder().join("container-node");
        std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        network::configure(&folder)?;
        let containerd = Containerd::start(supervisor, &folder).await?;
        containerd.import(&pause::archive(&folder).await?).await?;
        let programs = [
            dns::start(supervisor, &folder, control_plane).await?,
            kubelet::start(supervisor, &folder, control_plane, containerd.socket()).await?,
            kubelet::start_proxy(supervisor, &folder, control_plane).await?,
            network_policies::start(supervisor, &folder, control_plane).await?,
        ];
        let client = control_plane.client()?;
        let is_ready = |node: Option<&Node>| {
            let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
            conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        let ready = await_condition(Api::<Node>::all(client.clone()), NODE, is_ready);
        tokio::select! {
            ready = tokio::time::timeout(READY, ready) => match ready {
                Ok(ready) => drop(ready?),
                Err(_) => bail!("the node is not ready after {READY:?}; {}", last_words(&folder)),
            },
            ended = futures::future::select_all(programs.map(|child| Box::pin(child.exited()))) => {
                bail!("a program of the node ended ({:?}); {}", ended.0, last_words(&folder));
            }
        }
        Ok(Self { containerd, client })
    }

    /// Imports an image from an OCI archive.
    ///
    /// # Errors
    /// If containerd does not accept the archive.
    pub async fn import(&self, archive: &Path) -> anyhow::Result<()> {
        self.containerd.import(archive).await
    }

    /// Returns the log of the first container of a pod. The API server requests it from the kubelet.
    ///
    /// # Errors
    /// If the pod is gone or has not started.
    pub async fn logs(&self, namespace: &str, pod: &str) -> anyhow::Result<String> {
        Ok(Api::<Pod>::namespaced(self.client.clone(), namespace).logs(pod, &LogParams::default()).await?)
    }

    /// Kills the processes in the first container of a pod. The kubelet restarts the container, unless the pod is
    /// deleted before.
    ///
    /// # Errors
    /// If the container does not run.
    pub async fn kill(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let found = Api::<Pod>::namespaced(self.client.clone(), namespace).get(pod).await?;
        let id = container_id(&found).with_context(|| format!("pod {namespace}/{pod} has no running container"))?;
        self.containerd.kill(id).await
    }
}

/// Returns containerd's id of the first container of a pod.
fn container_id(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()?.container_id.as_ref()?.strip_prefix("containerd://")
}

/// Folders of the machine's programs that the node uses, as in Debian and most others.
fn machine_path() -> String {
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()
}

/// Starts a program of the node, with a log beside its files.
async fn launch(
    supervisor: &Supervisor,
    folder: &Path,
    program: PathBuf,
    arguments: impl IntoIterator<Item = String>,
) -> anyhow::Result<Child> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let path = format!("{}:{}", program.parent().unwrap_or(folder).display(), machine_path());
    let command =
        Command::new(program, folder.join(format!("{name}.log"))).args(arguments).env("PATH", path).folder(folder);
    supervisor.spawn(command).await
}

/// Runs a program of the machine to its end.
async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = tokio::process::Command::new(program);
    command.env("PATH", machine_path());
    CommandLine::new(program, command, arguments, Duration::from_secs(60)).succeed(None).await
}

/// Returns the last lines of all logs.
fn last_words(folder: &Path) -> String {
    let logs = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let ends = logs.map(|path| {
        let log = std::fs::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let (_, last) = lines.split_at(lines.len().saturating_sub(10));
        format!("last lines of {}:\n{}", path.display(), last.join("\n"))
    });
    ends.collect::<Vec<_>>().join("\n")
}
