//! Programs of the cases: pinned and installed, built, or those of the system.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Paths of the tools.
pub(crate) struct Tools {
    /// The tested program.
    pub(crate) server: PathBuf,
    /// This program, which also runs sessions of rmcp.
    pub(crate) itself: PathBuf,
    /// An interpreter with the Python SDK.
    pub(crate) python: PathBuf,
    /// The pinned Node.
    pub(crate) node: PathBuf,
    /// The folder with the TypeScript SDK, the Inspector and Puppeteer.
    pub(crate) node_modules: PathBuf,
    /// The browser.
    pub(crate) chromium: PathBuf,
}

impl Tools {
    /// Installs and builds missing programs. Blocks until that is done.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let chromium = of_the_system("chromium")?;
        of_the_system("dbus-daemon")?;
        of_the_system("gnome-keyring-daemon")?;
        let cache = image::Workspace::read()?.target.join("tmp");
        let node_modules = stock_clients::node_modules(&cache, "local-node-clients", &lists("node"))?;
        let node = stock_clients::node(&node_modules)?;
        let python = stock_clients::python(&cache, "local-python-clients", &lists("python"))?;
        let server = testbed::programs::program("mcp-entra-server")?;
        // The build of all programs may have replaced the running one.
        let itself = testbed::programs::program("e2e-local")?;
        Ok(Self { server, itself, python, node, node_modules, chromium })
    }
}

/// A folder of lists and scripts.
fn lists(language: &str) -> PathBuf {
    Path::new(stock_clients::MCP_CLIENTS).join(language)
}

/// Returns the path of a script of the clients, such as `python/session.py`.
pub(crate) fn script(name: &str) -> PathBuf {
    lists(name)
}

fn of_the_system(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.with_context(|| format!("{program} is missing: install chromium, dbus and gnome-keyring (Debian's names)"))
}
