//! Builds a program as it is shipped: statically linked, optimised, alone, and naming no folder of the machine.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use cargo_metadata::Message;
use memchr::memmem;

use crate::{Program, StaticProgram, Workspace};

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`, so that paths may have spaces.
const SEPARATOR: &str = "\u{1f}";

/// The programs of an image.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The program that a container runs.
    pub program: StaticProgram,
    /// Those beside it, by their names.
    pub beside: BTreeMap<&'static str, StaticProgram>,
}

/// Builds the program, and those beside it, for the machine that this runs on, and blocks until that is done.
///
/// # Errors
/// Where one does not build (the compiler's words stand on stderr), or is not what an empty root can run.
pub(crate) fn compile(workspace: &Workspace, program: Program) -> anyhow::Result<Compiled> {
    let folders = folders(workspace)?;
    // Each image by itself, so that no program has features that one of another image asks for.
    let output = build(workspace, &folders, program.all_names().flat_map(|name| ["--package", name, "--bin", name]))?;
    let read = |name| read(&executable(&output, name)?, &folders);
    let beside = program.beside().iter().map(|name| Ok((*name, read(name)?)));
    Ok(Compiled { program: read(program.name())?, beside: beside.collect::<anyhow::Result<_>>()? })
}

/// Builds a program that is not shipped. Nobody minds which folders it names.
///
/// # Errors
/// Where it does not build (the compiler's words stand on stderr), or is not what an empty root can run.
pub(crate) fn compile_other(workspace: &Workspace, package: &str, name: &str) -> anyhow::Result<StaticProgram> {
    let output = build(workspace, &folders(workspace)?, ["--package", package, "--bin", name])?;
    let path = executable(&output, name)?;
    StaticProgram::new(std::fs::read(&path).with_context(|| format!("read {}", path.display()))?)
}

/// Has cargo build what the arguments name, and returns its JSON output.
fn build<'a>(
    workspace: &Workspace,
    folders: &Folders,
    what: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<Vec<u8>> {
    if !cfg!(target_os = "linux") {
        bail!("the programs in images are Linux': run `cargo xtask image` there, or build charts/Containerfile");
    }
    let (target, what) = (target(), Vec::from_iter(what));
    let output = cargo()
        .args(["build", "--release", "--locked", "--message-format=json-render-diagnostics"])
        .args(&what)
        .args(["--target", &target])
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(folders).join(SEPARATOR))
        .env(format!("CFLAGS_{}", target.replace('-', "_")), c_flags(folders).join(" "))
        .current_dir(&workspace.root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    if !output.status.success() {
        bail!("`cargo build {}` failed; what the compiler says stands above", what.join(" "));
    }
    Ok(output.stdout)
}

/// Reads a program that was built, if it may be in an image.
fn read(path: &Path, folders: &Folders) -> anyhow::Result<StaticProgram> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    if let Some(folder) = named(&bytes, folders) {
        bail!(
            "{} names the folder {}, so elsewhere it would be another program; find with `strings` which crate names it, and remap that too",
            path.display(),
            folder.display()
        );
    }
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

/// Folders that compilers name in programs, and what to call each in every checkout. Of two that match, the later counts.
type Folders = [(PathBuf, &'static str); 3];

fn folders(workspace: &Workspace) -> anyhow::Result<Folders> {
    let given = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = given.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let home = home.context("where cargo keeps crates is not known: set CARGO_HOME")?;
    Ok([(workspace.root.clone(), "/mcp-entra"), (home, "/cargo"), (workspace.target.clone(), "/target")])
}

fn rust_flags(folders: &Folders) -> Vec<String> {
    let remap = folders.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    std::iter::once("-Ctarget-feature=+crt-static".to_owned()).chain(remap).collect()
}

fn c_flags(folders: &Folders) -> Vec<String> {
    folders.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display())).collect()
}

/// A folder that a program names though it was to be called otherwise.
fn named<'a>(program: &[u8], folders: &'a Folders) -> Option<&'a Path> {
    let mut renamed = folders.iter().filter(|(from, to)| from != Path::new(to)).map(|(from, _)| from.as_path());
    // With what follows it, since a short one, such as /src, may be part of another name.
    renamed.find(|from| memmem::find(program, from.join("").as_os_str().as_encoded_bytes()).is_some())
}

/// The path of the program of this name that cargo's JSON output tells of.
fn executable(messages: &[u8], name: &str) -> anyhow::Result<PathBuf> {
    for message in Message::parse_stream(BufReader::new(messages)) {
        if let Message::CompilerArtifact(artifact) = message?
            && artifact.target.name == name
            && let Some(path) = artifact.executable
        {
            return Ok(path.into());
        }
    }
    bail!("cargo built no program {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> Folders {
        let target = PathBuf::from("/home/someone/checkout/target");
        [("/home/someone/checkout".into(), "/mcp-entra"), ("/cargo".into(), "/cargo"), (target, "/target")]
    }

    #[test]
    fn the_folder_of_what_is_built_is_renamed_where_it_lies_in_the_workspace_too() {
        assert_eq!(
            rust_flags(&folders())[1..],
            [
                "--remap-path-prefix=/home/someone/checkout=/mcp-entra",
                "--remap-path-prefix=/cargo=/cargo",
                // The compiler takes the last that matches.
                "--remap-path-prefix=/home/someone/checkout/target=/target",
            ]
        );
    }

    #[test]
    fn a_program_that_names_a_folder_of_the_machine_is_found() {
        let folders = folders();
        let program = b"\0panicked at /home/someone/checkout/server/src/main.rs\0";
        assert_eq!(named(program, &folders), Some(Path::new("/home/someone/checkout")));
        assert_eq!(named(b"\0/mcp-entra/server/src/main.rs\0/cargo/registry/\0", &folders), None);
    }
}
