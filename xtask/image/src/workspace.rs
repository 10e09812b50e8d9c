//! Origin of an image: the packages of the workspace from cargo, and the commit from git.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use cargo_metadata::{MetadataCommand, Package};
use jiff::Timestamp;

/// Workspace of this crate.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its root folder.
    pub root: PathBuf,
    /// Target folder of cargo.
    pub target: PathBuf,
    packages: Vec<Package>,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// If cargo does not run, or does not understand the workspace.
    pub fn read() -> anyhow::Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
        Ok(Self {
            root: metadata.workspace_root.into(),
            target: metadata.target_directory.into(),
            packages: metadata.packages,
        })
    }

    /// One of its packages.
    ///
    /// # Errors
    /// If it has none of that name.
    pub fn package(&self, name: &str) -> anyhow::Result<&Package> {
        let named = self.packages.iter().find(|package| package.name.as_str() == name);
        named.with_context(|| format!("the workspace has no package {name}"))
    }
}

/// State of the workspace's files at the build of an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revision {
    /// Commit, with the suffix `-dirty` if files differ from it.
    pub name: String,
    /// Time of the commit, or `SOURCE_DATE_EPOCH` if set.
    pub created: Timestamp,
}

impl Revision {
    /// Asks git about the checkout in a folder.
    ///
    /// # Errors
    /// If there is none, or `source_date_epoch` is not a time.
    pub fn read(folder: &Path, source_date_epoch: Option<String>) -> anyhow::Result<Self> {
        let commit = git(folder, &["rev-parse", "HEAD"])?;
        let changed = git(folder, &["status", "--porcelain"])?;
        let seconds = match source_date_epoch {
            Some(given) => given,
            None => git(folder, &["log", "-1", "--format=%ct"])?,
        };
        let seconds = seconds.parse().with_context(|| {
            format!("{seconds} is not a time; set SOURCE_DATE_EPOCH to seconds since 1970, or unset it")
        })?;
        let dirty = if changed.is_empty() { "" } else { "-dirty" };
        Ok(Self { name: format!("{commit}{dirty}"), created: Timestamp::from_second(seconds)? })
    }
}

fn git(folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let what = format!("git {}", arguments.join(" "));
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run `{what}`: an image names its commit, so install git"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{what}` failed ({}): an image names its commit, so build it in a checkout", said.trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
