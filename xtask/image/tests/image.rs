//! Tests of the images' promises. Builds of the real programs take minutes, so a small program replaces them here.
//! `cargo xtask image` refuses dynamic and too large programs when it builds the real images.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows them in tests, but does not recognise helper functions of tests"
)]

mod archive;
mod containerfile;
mod revision;
mod sbom;
mod static_program;

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use image::{Compiled, Image, Program, Revision, StaticProgram, Workspace, image, reference};

static WORKSPACE: LazyLock<Workspace> = LazyLock::new(|| Workspace::read().unwrap());

/// Returns the image of a program, with a small program instead.
fn example(program: Program) -> Image {
    static STATIC: LazyLock<StaticProgram> = LazyLock::new(|| {
        StaticProgram::new(rustc(&["-Ctarget-feature=+crt-static", "-Cstrip=symbols"], "fn main() {}")).unwrap()
    });
    let revision = Revision { name: "a1b2".to_owned(), created: "2026-01-02T03:04:05Z".parse().unwrap() };
    let reference = reference("registry.example/team", program, "1.2.3").unwrap();
    let beside = program.beside().iter().map(|name| (*name, STATIC.clone())).collect();
    let built = Compiled { program: STATIC.clone(), beside };
    image(&WORKSPACE, &revision, program, reference, built).unwrap()
}

/// Compiles a source with rustc and the flags.
fn rustc(flags: &[&str], source: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("source.rs"), source).unwrap();
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let status = command.args(flags).arg("-o").args([path("made"), path("source.rs")]).status().unwrap();
    assert!(status.success());
    std::fs::read(path("made")).unwrap()
}

/// A file of the workspace.
fn workspace_file(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(WORKSPACE.root.join(path)).unwrap()
}
