//! Programs that the testbed runs, built when they are missing: those of Kubernetes from Go modules, and the project's
//! own.

mod go;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

pub use go::{CONTAINERD, CONTROL_PLANE, COREDNS, GoProgramSet, GoPrograms, HELM, NETWORK_POLICIES, NODE};

/// Returns the path of a program of the workspace, such as `mcp-entra-server`. The first call in a process builds all
/// of them, so that none is older than its source, and blocks until that is done.
///
/// # Errors
/// If the workspace does not build (the compiler's output is on stderr), or has no such program.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    static PROGRAMS: OnceLock<Result<BTreeMap<String, PathBuf>, String>> = OnceLock::new();
    let programs = PROGRAMS
        .get_or_init(|| build(&["--workspace", "--bins"]).map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))?;
    programs.get(name).cloned().with_context(|| {
        let known: Vec<_> = programs.keys().map(String::as_str).collect();
        format!("the workspace has no program {name}, only {}", known.join(", "))
    })
}

/// Returns the path of the supervisor's program, under which everything else is built and run. Builds only this
/// program.
///
/// # Errors
/// Same as [`program`].
pub(crate) fn supervisor() -> anyhow::Result<PathBuf> {
    const NAME: &str = "testbed-supervisor";
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    // Builds the whole workspace, so that dependencies have the features of all packages.
    let build = || build(&["--workspace", "--bin", NAME])?.remove(NAME).with_context(|| format!("there is no {NAME}"));
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!("{error}"))
}

/// Returns the path of a program of one package as it ships: optimised, and without features that other packages enable
/// in its dependencies. Builds it, and blocks until that is done.
///
/// # Errors
/// If the package does not build (the compiler's output is on stderr), or has no such program.
pub fn release_program(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let built = build(&["--release", "--package", package, "--bin", name])?.remove(name);
    built.with_context(|| format!("the package {package} has no program {name}"))
}

fn build(what: &[&str]) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built =
        announced_if_slow("building the project's programs (a cold build takes about 3 minutes on 2 cores)", || {
            Command::new(cargo)
                .args(["build", "--quiet", "--message-format=json-render-diagnostics"])
                .args(what)
                .current_dir(workspace())
                .stdin(Stdio::null())
                .stderr(Stdio::inherit())
                .output()
        })
        .context("run cargo")?;
    if !built.status.success() {
        bail!("`cargo build {}` failed; its output is above", what.join(" "));
    }
    Ok(String::from_utf8_lossy(&built.stdout).lines().filter_map(executable).collect())
}

/// Returns the name and path of the program in a line of cargo's JSON output, if there is one.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let path = message.get("executable")?.as_str()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), path.into()))
}

/// Root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own)
}

fn announced_if_slow<T>(what: &str, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (done, wait) = mpsc::channel::<()>();
        scope.spawn(move || {
            if wait.recv_timeout(Duration::from_secs(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
                progress(what);
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Prints a line for the waiting user. It does not use `eprintln!`, which libtest captures.
fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "testbed: {line}");
}
