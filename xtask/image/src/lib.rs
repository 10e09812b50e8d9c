//! The container images of both programs, as OCI archives and without a daemon: what `cargo xtask image` makes.
//!
//! [`pack`] decides the bytes of an image from what is to be in it. Around it stands what has to be asked or run: cargo,
//! which builds the programs and tells what they are made of, and git, which tells of which commit they are.

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

/// The registry that images are named after unless somebody says otherwise: that of images which were never pushed. A
/// registry where anybody may register a name must not be a default, since a node that lacks the image asks there.
pub const LOCAL: &str = "localhost";

/// The most that an archive may take: nodes pull it before a pod starts.
const MOST_BYTES: usize = 25_000_000;

/// A program that there is an image of.
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

    /// Further programs in its image, by the names of their packages. None has features that the program lacks, so all are
    /// built at once.
    #[must_use]
    pub fn beside(self) -> &'static [&'static str] {
        match self {
            Self::Operator => &[],
            // An init container copies it to where the container of a backend can run it.
            Self::Server => &["mcp-entra-shim"],
        }
    }

    /// Every program in its image.
    pub(crate) fn all_names(self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name()).chain(self.beside().iter().copied())
    }

    /// What the program is called, and its package and image.
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

/// An image that has been made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The name under which it is imported and pushed.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The archive's bytes, which are compressed.
    pub size: usize,
    /// The OCI archive.
    pub archive: PathBuf,
    /// What is in the program, as a CycloneDX document.
    pub sbom: PathBuf,
}

/// Builds a program, and those beside it, and makes its image and bill of materials, below `images` in cargo's target folder. Blocks until
/// that is done, which takes minutes where the program is not built yet.
///
/// # Errors
/// Where cargo or git fails, or where the image is not what is promised of it: static, and small.
pub fn build(workspace: &Workspace, program: Program, reference: Reference) -> anyhow::Result<Built> {
    let revision = Revision::read(&workspace.root, std::env::var("SOURCE_DATE_EPOCH").ok())?;
    let image = image(workspace, &revision, program, reference, compile::compile(workspace, program)?)?;
    let archive = pack(&image)?;
    let size = archive.bytes.len();
    ensure!(
        size <= MOST_BYTES,
        "the image of {program} takes {size} bytes, and {MOST_BYTES} is the most; see what grew with `cargo bloat`"
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

/// Builds a program that is not shipped, and makes an image of it alone, below `images` in cargo's target folder. It lies in
/// `/usr/local/bin`, where it is found by its name. Returns the archive.
///
/// # Errors
/// Where cargo fails, or the program is not static.
pub fn build_other(workspace: &Workspace, package: &str, program: &str, reference: &str) -> anyhow::Result<PathBuf> {
    let image = Image {
        reference: reference.parse().with_context(|| format!("{reference} is no name of an image"))?,
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

/// Builds a program, and those beside it, and writes the files of its image below a folder, for charts/Containerfile to copy. Blocks until
/// that is done.
///
/// # Errors
/// Where cargo fails, or a file cannot be written.
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

/// Writes a file such that whoever reads it meanwhile sees the old or the new one whole.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let (path, partial) = (folder.join(name), folder.join(format!(".{name}.{}", std::process::id())));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&partial, bytes))
        .and_then(|()| std::fs::rename(&partial, &path))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// The name of a program's image in a registry, or in a folder of it.
///
/// # Errors
/// Where that is no name that registries understand.
pub fn reference(registry: &str, program: Program, tag: &str) -> anyhow::Result<Reference> {
    let name = format!("{registry}/{program}:{tag}");
    name.parse().with_context(|| format!("{name} is no name of an image; change --registry or --tag"))
}

/// What is in the image of a program.
#[must_use]
pub fn root(program: Program, built: Compiled) -> Root {
    Root {
        program: built.program,
        path: format!("/{program}"),
        beside: built.beside.into_iter().map(|(name, beside)| (format!("/{name}"), beside)).collect(),
        files: BTreeMap::from([(certificates::PATH.to_owned(), certificates::bundle())]),
    }
}

/// What is to be the image of a program.
///
/// # Errors
/// Where the workspace has no package of the program's.
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
