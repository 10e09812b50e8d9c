//! Processes in the containers of pods, as the node sees them.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use serde_json::Value;

/// Process in a container of a pod.
pub(super) struct Process(PathBuf);

impl Process {
    /// Returns the process of a pod that runs the program of this name. The pod's uid is in the names of its control
    /// groups.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn of(pod: &Pod, program: &str) -> anyhow::Result<Self> {
        Self::find(pod, program, |_| true)
    }

    /// Returns the process with this id in its container, if there are several.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn numbered(pod: &Pod, program: &str, id: &str) -> anyhow::Result<Self> {
        let is_it = |process: &Self| {
            let ids = process.status("NSpid").unwrap_or_default();
            ids.split_whitespace().next_back() == Some(id)
        };
        Self::find(pod, program, is_it)
    }

    fn find(pod: &Pod, program: &str, is_it: impl Fn(&Self) -> bool) -> anyhow::Result<Self> {
        let uid = pod.uid().context("a uid")?;
        // The kernel keeps 15 characters of a name.
        let comm = program.get(..15).unwrap_or(program);
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let process = Self(entry.path());
            // A process that ends meanwhile has none of these files any more.
            let (Ok(groups), Ok(name)) = (process.read("cgroup"), process.read("comm")) else { continue };
            if groups.contains(&uid) && name.trim_end() == comm && is_it(&process) {
                return Ok(process);
            }
        }
        bail!("pod {} has no such process of {program}", pod.name_any())
    }

    /// Root of its file system.
    pub(super) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// Path of its program, which also runs outside the container.
    pub(super) fn program(&self) -> PathBuf {
        self.0.join("exe")
    }

    pub(super) fn pid(&self) -> anyhow::Result<Pid> {
        let name = self.0.file_name().context("a process")?.to_string_lossy();
        Ok(Pid::from_raw(name.parse()?))
    }

    pub(super) fn read(&self, file: &str) -> anyhow::Result<String> {
        let path = self.0.join(file);
        Ok(String::from_utf8_lossy(&std::fs::read(&path).with_context(|| path.display().to_string())?).into_owned())
    }

    /// Returns a line of `/proc/PID/status`.
    pub(super) fn status(&self, name: &str) -> anyhow::Result<String> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("/proc/PID/status has no {name}"))?.trim().to_owned())
    }

    pub(super) fn variable(&self, name: &str) -> anyhow::Result<String> {
        let environment = self.read("environ")?;
        let value = environment.split('\0').find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(str::to_owned).with_context(|| format!("the process has no variable {name}"))
    }

    /// Connects from the network of the process's pod. Returns true if the address answers, also with a refusal. Returns
    /// false if it does not answer within this time, because packets are dropped.
    pub(super) async fn reaches(&self, address: SocketAddr, within: Duration) -> anyhow::Result<bool> {
        self.in_network(move || match TcpStream::connect_timeout(&address, within) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(error).with_context(|| format!("connect to {address}")),
        })
        .await
    }

    /// Executes work that blocks in the network of the process's pod.
    pub(super) async fn in_network<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let network = File::open(self.0.join("ns/net"))?;
        // This thread ends in the network that it enters.
        let thread = std::thread::spawn(move || {
            setns(network, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        tokio::task::spawn_blocking(|| thread.join()).await?.map_err(|_| anyhow!("the thread panicked"))?
    }

    /// Returns the service account token that the process reads.
    pub(super) fn token(&self) -> anyhow::Result<Token> {
        let file = self.variable("AZURE_FEDERATED_TOKEN_FILE")?;
        let path = self.root().join(file.trim_start_matches('/'));
        let token = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Token::read(&token)
    }
}

/// Claims of a service account token that tests read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) issued: i64,
    pub(super) expires: i64,
}

impl Token {
    fn read(token: &str) -> anyhow::Result<Self> {
        use base64::Engine;
        let payload = token.split('.').nth(1).context("a JWT")?;
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload)?;
        let claims: Value = serde_json::from_slice(&claims)?;
        let time = |name: &str| claims.get(name).and_then(Value::as_i64).with_context(|| format!("no {name}"));
        Ok(Self { issued: time("iat")?, expires: time("exp")? })
    }
}
