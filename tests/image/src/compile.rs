//! Builds a program as it is shipped: statically linked, optimised, alone, and with no path of the machine in it.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use cargo_metadata::Message;

use crate::{Program, StaticProgram, Workspace};

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`, so that paths may have spaces.
const SEPARATOR: &str = "\u{1f}";

/// Builds the program for the machine that this runs on, and blocks until that is done.
///
/// # Errors
/// Where it does not build (the compiler's words stand on stderr), or is not what an empty root can run.
pub(crate) fn compile(workspace: &Workspace, program: Program) -> anyhow::Result<StaticProgram> {
    if !cfg!(target_os = "linux") {
        bail!("the programs in images are Linux': run `cargo image` there, or build charts/Containerfile");
    }
    let target = target();
    let output = cargo()
        .args(["build", "--release", "--locked", "--message-format=json-render-diagnostics"])
        .args(["--package", program.name(), "--bin", program.name(), "--target", &target])
        // Each package by itself, so that none has features that another asks for.
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(workspace)?.join(SEPARATOR))
        .env(format!("CFLAGS_{}", target.replace('-', "_")), c_flags(workspace)?.join(" "))
        .current_dir(&workspace.root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    if !output.status.success() {
        bail!("{program} does not build; what the compiler says stands above");
    }
    let path = executable(&output.stdout, program)?;
    let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    StaticProgram::new(bytes).with_context(|| format!("put {} into an image", path.display()))
}

/// What programs are built for: the GNU target, since that needs no second C compiler.
pub(crate) fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// The cargo that runs us, if one does.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn rust_flags(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let remap = |(from, to): (PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
    let linked = "-Ctarget-feature=+crt-static".to_owned();
    Ok(std::iter::once(linked).chain(names(workspace)?.map(remap)).collect())
}

fn c_flags(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let remap = |(from, to): (PathBuf, &str)| format!("-ffile-prefix-map={}={to}", from.display());
    Ok(names(workspace)?.map(remap).collect())
}

/// The folders that compilers name in programs, and what to call them in each checkout; of two that match, the later
/// counts.
fn names(workspace: &Workspace) -> anyhow::Result<std::array::IntoIter<(PathBuf, &'static str), 3>> {
    let given = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = given.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let home = home.context("where cargo keeps crates is not known: set CARGO_HOME")?;
    let names = [(workspace.root.clone(), "/mcp-entra"), (home, "/cargo"), (workspace.target.clone(), "/target")];
    Ok(names.into_iter())
}

/// The path of the program that cargo's JSON output tells of.
fn executable(messages: &[u8], program: Program) -> anyhow::Result<PathBuf> {
    for message in Message::parse_stream(BufReader::new(messages)) {
        if let Message::CompilerArtifact(artifact) = message?
            && artifact.target.name == program.name()
            && let Some(path) = artifact.executable
        {
            return Ok(path.into());
        }
    }
    bail!("cargo built no program {program}")
}
