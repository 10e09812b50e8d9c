//! Backends that run over HTTP as processes.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::Launch;

/// Time limit until a server accepts connections.
const START: Duration = Duration::from_secs(120);
/// Attempts, since another process may take a free port before the server does.
const ATTEMPTS: u8 = 3;

/// A backend that listens. Its process group is killed when this is dropped.
#[derive(Debug)]
pub struct HttpBackend {
    child: Child,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The path of its MCP endpoint.
    pub path: &'static str,
}

impl HttpBackend {
    pub(crate) async fn start(folder: &Path, launch: impl Fn(u16) -> anyhow::Result<Launch>) -> anyhow::Result<Self> {
        for _ in 0..ATTEMPTS {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port();
            let launch = launch(port)?;
            let child = launch.command().stdout(std::process::Stdio::null()).current_dir(folder).spawn()?;
            let mut backend = Self { child, port, path: "/mcp" };
            if backend.listens().await? {
                return Ok(backend);
            }
        }
        bail!("the backend ended {ATTEMPTS} times before it listened")
    }

    /// The URL of its MCP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, self.path)
    }

    /// The id of its process, unless the process has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills its process group, and waits until the process is gone.
    ///
    /// # Errors
    /// If the process cannot be awaited.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.kill_group();
        self.child.wait().await.context("wait for the backend")?;
        Ok(())
    }

    /// Waits until it accepts connections. Returns false if it ends before.
    async fn listens(&mut self) -> anyhow::Result<bool> {
        let end = Instant::now() + START;
        while Instant::now() < end {
            if self.child.try_wait()?.is_some() {
                return Ok(false);
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_ok() {
                return Ok(self.child.try_wait()?.is_none());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("the backend does not listen on port {} after {} s", self.port, START.as_secs())
    }

    fn kill_group(&self) {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        // The group may have ended already.
        killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

impl Drop for HttpBackend {
    fn drop(&mut self) {
        self.kill_group();
    }
}
