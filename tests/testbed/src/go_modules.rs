//! Go modules as data: the folders of modules that a `go.mod` below `tests/control-plane` pins. Nothing of them is
//! built.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::programs::workspace;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Module {
    path: String,
    /// Absent if the module could not be fetched.
    dir: Option<PathBuf>,
}

/// Fetches modules that the `go.mod` in a folder of `tests/control-plane` requires, all if none is named. Returns the
/// folder of each module by its path.
pub(crate) fn fetch(folder: &str, modules: &[&str]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    const INSTALL: &str = "install Go 1.26 or newer (https://go.dev/dl/): third-party definitions and schemas come from Go \
        modules, even if MCP_ENTRA_CONTROL_PLANE or KUBEBUILDER_ASSETS names a control plane";
    let fetched = Command::new("go")
        .args(["mod", "download", "-json"])
        .args(modules)
        .current_dir(workspace().join("tests/control-plane").join(folder))
        // Modules that are not in go.sum are refused, and an outer go.work is ignored.
        .envs([("GOWORK", "off"), ("GOFLAGS", "-mod=readonly")])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("Go is missing: {INSTALL}"))?;
    let said = String::from_utf8_lossy(&fetched.stderr);
    ensure!(fetched.status.success(), "`go mod download` failed: reach a Go module proxy, or {INSTALL}\n{said}");
    let modules = serde_json::Deserializer::from_slice(&fetched.stdout).into_iter::<Module>();
    modules
        .map(|module| {
            let Module { path, dir } = module.context("output of `go mod download -json`")?;
            let dir = dir.with_context(|| format!("Go did not fetch {path}"))?;
            Ok((path, dir))
        })
        .collect()
}
