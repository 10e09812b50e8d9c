//! Container images of both programs, as OCI archives and without a daemon, for `cargo xtask image`.
//!
//! [`pack`] derives the bytes of an image from its content. The other parts run programs: cargo builds the programs and
//! lists their crates, and git names the commit.

mod archive;
mod certificates;
mod compile;
pub mod sbom;
mod static_program;
mod workspace;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use jiff::Timestamp;
use oci_spec::image::{
    ANNOTATION_CREATED, ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_REVISION, ANNOTATION_TITLE,
    ANNOTATION_VERSION,
};

pub use archive::{Archive, File, Image, Root, USER, pack};
pub use compile::Compiled;
pub use oci_spec::distribution::Reference;
pub use static_program::StaticProgram;
pub use workspace::{Revision, Workspace};

/// Default registry in the names of images: that of images which were never pushed. A public registry, in which
/// everybody may register a name, must not be the default, since a node without the image pulls from it.
pub const LOCAL: &str = "localhost";

/// Maximum size of an archive: nodes pull it before a pod starts.
const MOST_BYTES: usize = 25_000_000;

/// A program with an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Program {
    /// `mcp-entra-operator`
    Operator,
    /// `mcp-entra-server`
    Server,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Operator, Self::Server];

    /// Other programs in its image, by the names of their packages. None has features that the program lacks, so all
    /// are built together.
    #[must_use]
    pub fn beside(self) -> &'static [&'static str] {
        match self {
            Self::Operator => &[],
            // An init container copies it to a volume, from which the container of a backend runs it.
            Self::Server => &["mcp-entra-shim"],
        }
    }

    /// Returns every program in its image.
    pub(crate) fn all_names(self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name()).chain(self.beside().iter().copied())
    }

    /// Name of the program, its package and its image.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "mcp-entra-operator",
            Self::Server => "mcp-entra-server",
        }
    }
}

impl Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl ValueEnum for Program {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// A built image.
#[derive(Clone, Debug)]
pub struct Built {
    /// Name for imports and pushes.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// Compressed size of the archive, in bytes.
    pub size: usize,
    /// The OCI archive.
    pub archive: PathBuf,
    /// Content of the program, as a CycloneDX document.
    pub sbom: PathBuf,
}

/// Builds a program, and the other ones of its image, and creates its image and bill of materials, below `images` in
/// cargo's target folder. Blocks until that is done, which takes minutes if the program is not built yet.
///
/// # Errors
/// If cargo or git fails, or the image is not static or too large.
pub fn build(workspace: &Workspace, program: Program, reference: Reference) -> anyhow::Result<Built> {
    let revision = Revision::read(&workspace.root, std::env::var("SOURCE_DATE_EPOCH").ok())?;
    let image = image(workspace, &revision, program, reference, compile::compile(workspace, program)?)?;
    let archive = pack(&image)?;
    let size = archive.bytes.len();
    ensure!(
        size <= MOST_BYTES,
        "the image of {program} has {size} bytes, more than {MOST_BYTES}; find the cause with `cargo bloat`"
    );
    let bill = sbom::document(program, &sbom::crates(workspace, program)?, revision.created)?;
    let folder = workspace.target.join("images");
    Ok(Built {
        reference: image.reference.whole(),
        digest: archive.digest,
        size,
        archive: write(&folder, &format!("{program}.tar"), &archive.bytes)?,
        sbom: write(&folder, &format!("{program}.cdx.json"), &bill)?,
    })
}

/// Builds a program that does not ship, and creates an image with only this program, below `images` in cargo's target
/// folder. Its path is in `/usr/local/bin`, so that it is found by its name. Returns the archive.
///
/// # Errors
/// If cargo fails, or the program is not static.
pub fn build_other(workspace: &Workspace, package: &str, program: &str, reference: &str) -> anyhow::Result<PathBuf> {
    let image = Image {
        reference: reference.parse().with_context(|| format!("{reference} is not a valid name of an image"))?,
        root: Root {
            program: compile::compile_other(workspace, package, program)?,
            path: format!("/usr/local/bin/{program}"),
            beside: BTreeMap::new(),
            files: BTreeMap::new(),
        },
        labels: BTreeMap::new(),
        created: Timestamp::UNIX_EPOCH,
    };
    write(&workspace.target.join("images"), &format!("{program}.tar"), &pack(&image)?.bytes)
}

/// Builds a program, and the other ones of its image, and writes the files of its image below a folder, which
/// charts/Containerfile copies. Blocks until that is done.
///
/// # Errors
/// If cargo fails, or a file cannot be written.
pub fn build_root(workspace: &Workspace, program: Program, folder: &Path) -> anyhow::Result<()> {
    let root = root(program, compile::compile(workspace, program)?);
    for (path, file) in root.files() {
        let path = folder.join(path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        std::fs::write(&path, file.bytes).with_context(|| format!("write {}", path.display()))?;
        std::fs::set_permissions(&path, Permissions::from_mode(file.mode))?;
    }
    Ok(())
}

/// Replaces a file atomically: readers see the complete old or the complete new one.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let (path, partial) = (folder.join(name), folder.join(format!(".{name}.{}", std::process::id())));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&partial, bytes))
        .and_then(|()| std::fs::rename(&partial, &path))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Returns the name of a program's image in a registry, or in a folder of it.
///
/// # Errors
/// If this is not a name that registries accept.
pub fn reference(registry: &str, program: Program, tag: &str) -> anyhow::Result<Reference> {
    let name = format!("{registry}/{program}:{tag}");
    name.parse().with_context(|| format!("{name} is not a valid name of an image; change --registry or --tag"))
}

/// Returns the content of the image of a program.
#[must_use]
pub fn root(program: Program, built: Compiled) -> Root {
    Root {
        program: built.program,
        path: format!("/{program}"),
        beside: built.beside.into_iter().map(|(name, beside)| (format!("/{name}"), beside)).collect(),
        files: BTreeMap::from([(certificates::PATH.to_owned(), certificates::bundle())]),
    }
}

/// Returns the image of a program.
///
/// # Errors
/// If the workspace has no package of the program's.
pub fn image(
    workspace: &Workspace,
    revision: &Revision,
    program: Program,
    reference: Reference,
    built: Compiled,
) -> anyhow::Result<Image> {
    let package = workspace.package(program.name())?;
    let labels = [
        (ANNOTATION_TITLE, program.name().to_owned()),
        (ANNOTATION_DESCRIPTION, package.description.clone().unwrap_or_default()),
        (ANNOTATION_VERSION, package.version.to_string()),
        (ANNOTATION_LICENSES, package.license.clone().unwrap_or_default()),
        (ANNOTATION_REVISION, revision.name.clone()),
        (ANNOTATION_CREATED, revision.created.to_string()),
    ];
    Ok(Image {
        reference,
        root: root(program, built),
        labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
        created: revision.created,
    })
}
