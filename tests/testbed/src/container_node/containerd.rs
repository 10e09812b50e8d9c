//! containerd, which runs the containers for the kubelet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::{last_words, launch, pause};
use crate::command_line::CommandLine;
use crate::programs::{CONTAINERD, GoPrograms};
use crate::supervisor::Supervisor;

/// containerd's namespace for images of Kubernetes.
const IMAGES: &str = "k8s.io";
const READY: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

pub(super) struct Containerd {
    programs: GoPrograms,
    socket: PathBuf,
}

impl Containerd {
    pub(super) async fn start(supervisor: &Supervisor, folder: &Path) -> anyhow::Result<Self> {
        let programs = GoPrograms::find_or_build(supervisor, &CONTAINERD).await?;
        // The path of a socket has at most 107 bytes.
        let containerd = Self { programs, socket: "/run/containerd.sock".into() };
        let file = folder.join("containerd.toml");
        std::fs::write(&file, containerd.configuration(folder)).context("write containerd's configuration")?;
        let arguments = [format!("--config={}", file.display())];
        let child = launch(supervisor, folder, containerd.programs.path("containerd"), arguments).await?;
        let ready = async {
            while containerd.ctr(&["version"]).succeed(None).await.is_err() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::select! {
            ready = tokio::time::timeout(READY, ready) => {
                ready.with_context(|| format!("containerd is not ready after {READY:?}; {}", last_words(folder)))?;
            }
            status = child.exited() => bail!("containerd ended ({status:?}); {}", last_words(folder)),
        }
        Ok(containerd)
    }

    fn configuration(&self, folder: &Path) -> String {
        let (folder, socket, pause) = (folder.display(), self.socket.display(), pause::REFERENCE);
        // If this machine is itself a container, the kernel may forbid a lower OOM score, and with it any later
        // increase. Every sandbox would fail.
        format!(
            "version = 3
root = '{folder}/containerd'
state = '/run/containerd'
[grpc]
  address = '{socket}'
[ttrpc]
  address = '{socket}.ttrpc'
[plugins.'io.containerd.internal.v1.opt']
  path = '{folder}/opt'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{pause}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['/usr/lib/cni']
    conf_dir = '{folder}/networks'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
"
        )
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) async fn import(&self, archive: &Path) -> anyhow::Result<()> {
        self.ctr(&["images", "import", &archive.display().to_string()]).succeed(None).await.map(drop)
    }

    pub(super) async fn kill(&self, container: &str) -> anyhow::Result<()> {
        self.ctr(&["tasks", "kill", "--signal", "SIGKILL", container]).succeed(None).await.map(drop)
    }

    fn ctr(&self, arguments: &[&str]) -> CommandLine {
        let mut command = tokio::process::Command::new(self.programs.path("ctr"));
        command.arg("--address").arg(&self.socket).args(["--namespace", IMAGES]);
        CommandLine::new("ctr", command, arguments, Duration::from_secs(60))
    }
}
