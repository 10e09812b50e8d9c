//! Programs that run to their end for their output: kubectl and Helm.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Program with its arguments, and its name in errors.
pub struct CommandLine {
    name: String,
    command: Command,
    limit: Duration,
}

impl CommandLine {
    /// Wraps `command`. `name` is the command as a user types it. It is killed after `limit`.
    pub fn new(name: &str, mut command: Command, arguments: &[&str], limit: Duration) -> Self {
        command.args(arguments);
        Self { name: format!("{name} {}", arguments.join(" ")), command, limit }
    }

    /// Runs a command that must succeed, and returns its output.
    pub async fn succeed(self, input: Option<&str>) -> anyhow::Result<String> {
        let name = self.name.clone();
        let output = self.output(input).await?;
        ensure!(
            output.status.success(),
            "{name}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command that must fail, and returns its error output.
    pub(crate) async fn fail(self, input: Option<&str>) -> anyhow::Result<String> {
        let name = self.name.clone();
        let output = self.output(input).await?;
        ensure!(!output.status.success(), "{name} should fail, and succeeded");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    async fn output(mut self, input: Option<&str>) -> anyhow::Result<Output> {
        let name = self.name;
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input.as_bytes()).await?;
        }
        tokio::time::timeout(self.limit, child.wait_with_output())
            .await
            .with_context(|| format!("{name} did not end within {} s", self.limit.as_secs()))?
            .with_context(|| format!("wait for {name}"))
    }
}
