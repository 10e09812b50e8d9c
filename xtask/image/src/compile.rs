//! Builds a program for release: statically linked, optimised, separately, and without folder names of the machine.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use cargo_metadata::Message;
use memchr::memmem;

use crate::{Program, StaticProgram, Workspace};

/// Separator of flags in `CARGO_ENCODED_RUSTFLAGS`, so that paths may contain spaces.
const SEPARATOR: &str = "\u{1f}";

/// Programs of an image.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Program that a container runs.
    pub program: StaticProgram,
    /// Other programs of the image, by their names.
    pub beside: BTreeMap<&'static str, StaticProgram>,
}

/// Builds the program, and the other ones of its image, for this machine, and blocks until that is done.
///
/// # Errors
/// If one does not build (the compiler's output is on stderr), or cannot run in an empty root.
pub(crate) fn compile(workspace: &Workspace, program: Program) -> anyhow::Result<Compiled> {
    let folders = folders(workspace)?;
    // Each image separately, so that no program has features that a program of another image enables.
    let output = build(workspace, &folders, program.all_names().flat_map(|name| ["--package", name, "--bin", name]))?;
    let read = |name| read(&executable(&output, name)?, &folders);
    let beside = program.beside().iter().map(|name| Ok((*name, read(name)?)));
    Ok(Compiled { program: read(program.name())?, beside: beside.collect::<anyhow::Result<_>>()? })
}

/// Builds a program that does not ship. It may contain any folder names.
///
/// # Errors
/// If it does not build (the compiler's output is on stderr), or cannot run in an empty root.
pub(crate) fn compile_other(workspace: &Workspace, package: &str, name: &str) -> anyhow::Result<StaticProgram> {
    let output = build(workspace, &folders(workspace)?, ["--package", package, "--bin", name])?;
    let path = executable(&output, name)?;
    StaticProgram::new(std::fs::read(&path).with_context(|| format!("read {}", path.display()))?)
}

/// Runs `cargo build` with the arguments, and returns its JSON output.
fn build<'a>(
    workspace: &Workspace,
    folders: &Folders,
    what: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<Vec<u8>> {
    if !cfg!(target_os = "linux") {
        bail!("programs in images are for Linux: run `cargo xtask image` on Linux, or build charts/Containerfile");
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
        bail!("`cargo build {}` failed; the output of the compiler is above", what.join(" "));
    }
    Ok(output.stdout)
}

/// Reads a built program, if it is valid for an image.
fn read(path: &Path, folders: &Folders) -> anyhow::Result<StaticProgram> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    if let Some(folder) = named(&bytes, folders) {
        bail!(
            "{} contains the folder name {}, so its bytes depend on the machine; find the crate with `strings`, and remap the folder",
            path.display(),
            folder.display()
        );
    }
    StaticProgram::new(bytes).with_context(|| format!("put {} into an image", path.display()))
}

/// Target of the programs: GNU, which needs no second C compiler.
pub(crate) fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Path of the cargo that runs this program, if there is one.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Folders that compilers write into programs, with a replacement that is equal in every checkout. Of two matches, the
/// later one wins.
type Folders = [(PathBuf, &'static str); 3];

fn folders(workspace: &Workspace) -> anyhow::Result<Folders> {
    let given = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = given.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let home = home.context("the folder of cargo's crates is not known: set CARGO_HOME")?;
    Ok([(workspace.root.clone(), "/mcp-entra"), (home, "/cargo"), (workspace.target.clone(), "/target")])
}

/// Flags of every program: static, with packed relocations. Unpacked, those of the server take 0.6 MB of memory.
const FLAGS: [&str; 2] = ["-Ctarget-feature=+crt-static", "-Clink-arg=-Wl,-z,pack-relative-relocs"];

fn rust_flags(folders: &Folders) -> Vec<String> {
    let remap = folders.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    FLAGS.map(str::to_owned).into_iter().chain(remap).collect()
}

fn c_flags(folders: &Folders) -> Vec<String> {
    folders.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display())).collect()
}

/// Returns a folder that a program contains despite its replacement.
fn named<'a>(program: &[u8], folders: &'a Folders) -> Option<&'a Path> {
    let mut renamed = folders.iter().filter(|(from, to)| from != Path::new(to)).map(|(from, _)| from.as_path());
    // With the following character, since a short name, such as /src, may be part of another.
    renamed.find(|from| memmem::find(program, from.join("").as_os_str().as_encoded_bytes()).is_some())
}

/// Returns the path of the program of this name in cargo's JSON output.
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
    fn the_target_folder_is_renamed_even_inside_the_workspace() {
        assert_eq!(
            rust_flags(&folders())[FLAGS.len()..],
            [
                "--remap-path-prefix=/home/someone/checkout=/mcp-entra",
                "--remap-path-prefix=/cargo=/cargo",
                // The compiler uses the last match.
                "--remap-path-prefix=/home/someone/checkout/target=/target",
            ]
        );
    }

    #[test]
    fn a_program_with_a_folder_name_of_the_machine_is_found() {
        let folders = folders();
        let program = b"\0panicked at /home/someone/checkout/server/src/main.rs\0";
        assert_eq!(named(program, &folders), Some(Path::new("/home/someone/checkout")));
        assert_eq!(named(b"\0/mcp-entra/server/src/main.rs\0/cargo/registry/\0", &folders), None);
    }
}
