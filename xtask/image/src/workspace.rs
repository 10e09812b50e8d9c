//! What an image says of where it comes from: the workspace's packages as cargo tells of them, the commit as git does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use cargo_metadata::{MetadataCommand, Package};
use jiff::Timestamp;

/// The workspace that this crate is of.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Its root folder.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
    packages: Vec<Package>,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// Where cargo does not run, or does not understand the workspace.
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
    /// Where it has none of that name.
    pub fn package(&self, name: &str) -> anyhow::Result<&Package> {
        let named = self.packages.iter().find(|package| package.name.as_str() == name);
        named.with_context(|| format!("the workspace has no package {name}"))
    }
}

/// What the workspace's files were when an image was made of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revision {
    /// The commit, and `-dirty` behind it where files differ from it.
    pub name: String,
    /// The commit's time, or what `SOURCE_DATE_EPOCH` says instead.
    pub created: Timestamp,
}

impl Revision {
    /// Asks git about the checkout in a folder.
    ///
    /// # Errors
    /// Where there is none, or `source_date_epoch` is no time.
    pub fn read(folder: &Path, source_date_epoch: Option<String>) -> anyhow::Result<Self> {
        let commit = git(folder, &["rev-parse", "HEAD"])?;
        let changed = git(folder, &["status", "--porcelain"])?;
        let seconds = match source_date_epoch {
            Some(given) => given,
            None => git(folder, &["log", "-1", "--format=%ct"])?,
        };
        let seconds = seconds.parse().with_context(|| {
            format!("{seconds} is no time; set SOURCE_DATE_EPOCH to seconds since 1970, or to nothing at all")
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
        .with_context(|| format!("run `{what}`: an image says of which commit it is, so install git"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{what}` failed ({}): an image says of which commit it is, so make it in a checkout", said.trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
