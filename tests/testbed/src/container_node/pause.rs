//! Image of the container that holds a pod's namespaces, compiled here from the sources of Kubernetes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use image::{Image, Root, StaticProgram, pack};

use super::run;
use crate::command_line::CommandLine;
use crate::programs::workspace;

/// Reference in containerd's configuration.
pub(super) const REFERENCE: &str = "localhost/pause:1";

/// Builds the image, and returns its archive.
pub(super) async fn archive(folder: &Path) -> anyhow::Result<PathBuf> {
    let program = folder.join("pause");
    let source = sources().await?.join("build/pause/linux/pause.c");
    let (output, input) = (program.display().to_string(), source.display().to_string());
    run("cc", &["-Os", "-static", "-DVERSION=testbed", "-o", &output, &input]).await?;
    let image = Image {
        reference: REFERENCE.parse()?,
        root: Root {
            program: StaticProgram::new(std::fs::read(&program)?)?,
            path: "/pause".to_owned(),
            beside: BTreeMap::new(),
            files: BTreeMap::new(),
        },
        labels: BTreeMap::new(),
        created: jiff::Timestamp::UNIX_EPOCH,
    };
    let archive = folder.join("pause.tar");
    std::fs::write(&archive, pack(&image)?.bytes).with_context(|| format!("write {}", archive.display()))?;
    Ok(archive)
}

/// Returns the folder in which Go keeps the sources of Kubernetes. The build of its programs puts them there.
async fn sources() -> anyhow::Result<PathBuf> {
    let mut command = tokio::process::Command::new("go");
    command.current_dir(workspace().join("tests/control-plane")).env("GOWORK", "off");
    let arguments = ["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"];
    let said = CommandLine::new("go", command, &arguments, Duration::from_secs(60)).succeed(None).await?;
    Ok(said.trim().into())
}
