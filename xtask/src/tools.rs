//! Programs that the lanes of CI need: Debian packages, and linters that `.ci/requirements.txt` pins.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use image::Workspace;

use crate::execute;

/// Installs the Debian packages that are missing.
///
/// # Errors
/// If apt or root is missing; the message names the packages.
pub(crate) fn debian_packages(packages: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {missing:?}");
    let needs = || format!("install {missing:?} (Debian's names); this takes apt-get and root");
    execute(Command::new("apt-get").args(["update", "--quiet", "--quiet"])).with_context(needs)?;
    let install = ["install", "--quiet", "--yes", "--no-install-recommends"];
    execute(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(install).args(&missing))
        .with_context(needs)
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["--show", "--showformat", "${Status}", package]).output();
    query.is_ok_and(|output| output.stdout.ends_with(b"ok installed"))
}

/// Checks that Go is there, which the tests build a Kubernetes control plane with, or a folder with the built programs.
///
/// # Errors
/// If neither is.
pub(crate) fn go() -> anyhow::Result<()> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_built = is_set("MCP_ENTRA_CONTROL_PLANE") || is_set("KUBEBUILDER_ASSETS");
    ensure!(
        is_built || Command::new("go").arg("version").output().is_ok(),
        "Go is missing: the tests build a Kubernetes control plane from its Go modules. Install Go 1.26 or newer, or name \
         a folder with its programs in MCP_ENTRA_CONTROL_PLANE"
    );
    Ok(())
}

/// Returns a linter of `.ci/requirements.txt`, which is installed below `target/tmp`.
///
/// # Errors
/// If Python or the package index is missing.
pub(crate) fn linter(workspace: &Workspace, name: impl AsRef<OsStr>) -> anyhow::Result<PathBuf> {
    let python = stock_clients::python(&workspace.target.join("tmp"), "linters", &workspace.root.join(".ci"))?;
    let folder = python.parent().context("an interpreter is in a folder")?;
    Ok(folder.join(name.as_ref()))
}
