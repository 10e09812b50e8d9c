//! Helm with the rights of the cluster administrator. Its caches and settings are in the testbed's folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::command_line::CommandLine;
use crate::programs::{GoPrograms, HELM};
use crate::supervisor::Supervisor;

/// Timeout of Helm, longer than its own `--timeout` of five minutes.
const LIMIT: Duration = Duration::from_secs(6 * 60);

/// Helm for one cluster, or without one.
#[derive(Debug, Clone)]
pub struct Helm {
    program: PathBuf,
    folder: PathBuf,
    kubeconfig: Option<PathBuf>,
}

impl Helm {
    /// Helm without a cluster, which can render, lint and package. It is built if missing.
    ///
    /// # Errors
    /// If it cannot be built.
    pub async fn offline(supervisor: &Supervisor) -> anyhow::Result<Self> {
        let programs = GoPrograms::find_or_build(supervisor, &HELM).await?;
        Ok(Self { program: programs.path("helm"), folder: supervisor.folder().join("helm"), kubeconfig: None })
    }

    /// Helm for the user of a kubeconfig file.
    ///
    /// # Errors
    /// If it cannot be built.
    pub async fn with_kubeconfig(supervisor: &Supervisor, kubeconfig: PathBuf) -> anyhow::Result<Self> {
        Ok(Self { kubeconfig: Some(kubeconfig), ..Self::offline(supervisor).await? })
    }

    /// Path of the program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs Helm and returns its output.
    ///
    /// # Errors
    /// If it fails. The error has its output.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.command_line(arguments).succeed(None).await
    }

    /// Runs a command of Helm that must fail, and returns its error output.
    ///
    /// # Errors
    /// If it succeeds.
    pub async fn refused(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.command_line(arguments).fail(None).await
    }

    fn command_line(&self, arguments: &[&str]) -> CommandLine {
        let mut command = Command::new(&self.program);
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, self.folder.join(folder));
        }
        // Without a cluster of ours, Helm must not use the cluster of the user by accident.
        command.env("KUBECONFIG", self.kubeconfig.clone().unwrap_or_else(|| self.folder.join("no-cluster")));
        CommandLine::new("helm", command, arguments, LIMIT)
    }
}
