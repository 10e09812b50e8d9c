//! The shim, which starts the process of a backend over stdio for each connection to its socket.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stock_backends::Launch;
use tempfile::TempDir;

use crate::process;
use crate::until::until;

/// Maximum number of processes of a backend.
const MOST_PROCESSES: &str = "8";

/// A running shim. All its processes end with it.
pub(super) struct Shim {
    child: Child,
    program: PathBuf,
    folder: TempDir,
}

impl Shim {
    /// Starts a shim of this program for a backend, on the cores of this thread.
    pub(super) async fn start(program: &Path, launch: &Launch) -> anyhow::Result<Self> {
        let (program, folder) = (program.canonicalize()?, tempfile::tempdir()?);
        let mut command = Command::new(&program);
        command.args(["serve", "--max-processes", MOST_PROCESSES, "--socket"]).arg(folder.path().join("s")).arg("--");
        command.args(launch.words()).envs(launch.env.iter().cloned());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let shim = Self { child, program, folder };
        until("the shim listens", async || Ok(shim.socket().exists())).await?;
        Ok(shim)
    }

    /// Socket of the shim.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Processes of the shim, without those of the backend.
    pub(super) fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let mut processes = process::family(self.child.id())?;
        processes.retain(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == self.program));
        Ok(processes)
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        _ = self.child.wait();
    }
}
