//! The suite as a program: its installation, and the output of a run.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::results::{Requirements, Results};

/// Timeout of the scenarios of one revision.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// The installed suite.
pub(crate) struct Suite {
    node: PathBuf,
    folder: PathBuf,
}

impl Suite {
    /// Installs the pinned suite and its Node, if they are missing. Blocks until that is done.
    ///
    /// # Errors
    /// If npm or the registry is not available.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let cache = image::Workspace::read()?.target.join("tmp");
        let lists = Path::new(stock_clients::MCP_CLIENTS).join("node");
        let node_modules = stock_clients::node_modules(&cache, "local-node-clients", &lists)?;
        let folder = node_modules.join("@modelcontextprotocol/conformance");
        Ok(Self { node: stock_clients::node(&node_modules)?, folder })
    }

    /// Scenarios that a revision requires, as frozen in the suite.
    ///
    /// # Errors
    /// If the suite does not know the revision, or requires nothing.
    pub(crate) fn requirements(&self, revision: &str) -> anyhow::Result<Requirements> {
        let file = self.folder.join("requirements").join(format!("{revision}.yaml"));
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Requirements::parse(&text).with_context(|| file.display().to_string())
    }

    /// Runs the scenarios of a revision against the server of this URL.
    ///
    /// # Errors
    /// If the suite does not end, or leaves no result.
    pub(crate) async fn run(&self, revision: &str, url: &str) -> anyhow::Result<Results> {
        let output = tempfile::tempdir()?;
        let mut command = Command::new(&self.node);
        command.arg(self.folder.join("dist/index.js")).args(["server", "--url", url, "--requirements", revision]);
        command.arg("--output-dir").arg(output.path());
        command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let ended = tokio::time::timeout(TIME_LIMIT, command.output()).await;
        let ended = ended.with_context(|| format!("the suite does not end within {} s", TIME_LIMIT.as_secs()))??;
        // The exit code is ignored, since it does not consider expected failures.
        let results = Results::read(output.path())?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(!results.is_empty(), "the suite has no results; its output:\n{said}");
        Ok(results)
    }
}
