//! `cargo xtask image`: builds the programs, puts each into a container image, and prints the next steps.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use image::{Built, LOCAL, Program, Workspace, build, build_root, reference};

/// Builds the container images of the operator and the server as OCI archives in `target/images`, with a bill of
/// materials beside each.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Programs to build images of; all programs if none is named
    programs: Vec<Program>,
    /// Registry that the images are pushed to, such as `registry.contoso.com/platform`; the chart's value
    /// `image.registry`
    #[arg(long, default_value = LOCAL)]
    registry: String,
    /// Tag of the images
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Write the content of each image to a folder of its name below this one, without an archive (for
    /// charts/Containerfile)
    #[arg(long)]
    root: Option<PathBuf>,
}

/// Makes the images, with a bill of materials beside each.
///
/// # Errors
/// If a program does not build, or an image cannot be made of it.
pub(crate) fn run(Arguments { programs, registry, tag, root }: &Arguments) -> anyhow::Result<()> {
    let programs = if programs.is_empty() { Program::value_variants() } else { programs };
    let workspace = Workspace::read()?;
    for program in programs {
        match root {
            Some(folder) => build_root(&workspace, *program, &folder.join(program.name()))?,
            None => describe(&build(&workspace, *program, reference(registry, *program, tag)?)?),
        }
    }
    Ok(())
}

fn describe(Built { reference, digest, size, archive, sbom }: &Built) {
    let (archive, sbom) = (near(archive), near(sbom));
    println!("{reference}");
    println!("  digest   {digest}");
    println!("  size     {}.{} MB, compressed", size / 1_000_000, size / 100_000 % 10);
    println!("  archive  {}", archive.display());
    println!("  SBOM     {}", sbom.display());
    match reference.split_once('/') {
        Some((LOCAL, name)) => {
            println!("  push     skopeo copy oci-archive:{} docker://<registry>/{name}", archive.display());
        }
        _ => println!("  push     skopeo copy oci-archive:{} docker://{reference}", archive.display()),
    }
    println!("  import   ctr -n k8s.io images import {} (on a node)", archive.display());
}

/// Returns the path relative to the current folder, if it is below it.
fn near(path: &Path) -> &Path {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path)
}
