//! Kubernetes' programs: from a folder that an environment variable names, else from the cache, where they are built
//! once from the Go modules that `tests/control-plane/go.mod` pins.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use super::{progress, workspace};
use crate::supervisor::{Command, Supervisor};

/// File names and Go packages, the slowest first.
const PROGRAMS: [(&str, &str); 5] = [
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("etcd", "go.etcd.io/etcd/server/v3"),
];
/// Kubernetes' own build sets its version with the linker; without that `kubectl version` says v0.0.0.
const LINKER_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37";
/// What go.mod asks for.
const OLDEST_GO: (u32, u32) = (1, 26);
const FOLDER_VARIABLES: [&str; 2] = ["MCP_ENTRA_CONTROL_PLANE", "KUBEBUILDER_ASSETS"];

/// The folder with Kubernetes' programs.
#[derive(Debug, Clone)]
pub struct ControlPlanePrograms {
    folder: PathBuf,
}

impl ControlPlanePrograms {
    /// Finds the programs, or builds them: about 7 minutes on 2 cores, told on stderr. Whoever else wants them meanwhile
    /// waits for the same build.
    ///
    /// # Errors
    /// Where `MCP_ENTRA_CONTROL_PLANE` or `KUBEBUILDER_ASSETS` names a folder that lacks one of them, Go is missing or too
    /// old, or the build fails.
    pub async fn find_or_build(supervisor: &Supervisor) -> anyhow::Result<Self> {
        for variable in FOLDER_VARIABLES {
            if let Some(folder) = std::env::var_os(variable).filter(|folder| !folder.is_empty()) {
                return Self::named(variable, folder.into());
            }
        }
        let modules = workspace().join("tests/control-plane");
        let folder = cache()?.join("mcp-entra/control-plane").join(key(&modules)?);
        if !folder.is_dir() {
            build(supervisor, &modules, &folder).await?;
        }
        Ok(Self { folder })
    }

    fn named(variable: &str, folder: PathBuf) -> anyhow::Result<Self> {
        for (name, _) in PROGRAMS {
            ensure!(
                folder.join(name).is_file(),
                "{variable} names {}, which has no {name}: add it, or unset the variable to have it built from Go modules",
                folder.display()
            );
        }
        Ok(Self { folder })
    }

    /// The path of `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kubectl` or `etcd`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn cache() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME names a folder to keep the control plane in")
}

/// Other versions or flags are other programs.
fn key(modules: &Path) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    for name in ["go.mod", "go.sum"] {
        let path = modules.join(name);
        hash.update(std::fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    hash.update(LINKER_FLAGS);
    for (name, package) in PROGRAMS {
        hash.update(format!("{name}={package}\n"));
    }
    Ok(hex::encode(hash.finalize()).chars().take(16).collect())
}

async fn build(supervisor: &Supervisor, modules: &Path, folder: &Path) -> anyhow::Result<()> {
    let parent = folder.parent().context("the cache folder")?;
    std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    let _lock = lock(folder.with_extension("lock")).await?;
    if folder.is_dir() {
        return Ok(());
    }
    check_go(supervisor, modules).await?;
    // Only who holds the lock is here: what lies there is left from a build that was interrupted.
    let partial = folder.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    std::fs::create_dir(&partial).with_context(|| format!("make {}", partial.display()))?;
    let begun = Instant::now();
    progress(&format!(
        "building Kubernetes v1.37.2 once, into {}: about 7 minutes on 2 cores with an empty Go cache",
        folder.display()
    ));
    for (position, (name, package)) in PROGRAMS.into_iter().enumerate() {
        let what = format!("{name} ({} of {})", position + 1, PROGRAMS.len());
        let arguments = ["build", "-trimpath", "-ldflags", LINKER_FLAGS, "-o"];
        let output = partial.join(name);
        let command =
            go(supervisor, modules, "go-build.log").args(arguments).args([output.to_string_lossy(), package.into()]);
        run(supervisor, command, &what, begun).await?;
    }
    std::fs::rename(&partial, folder).with_context(|| format!("publish {}", folder.display()))?;
    progress(&format!("built Kubernetes in {} s", begun.elapsed().as_secs()));
    Ok(())
}

/// Held until dropped, or until this process is gone.
async fn lock(path: PathBuf) -> anyhow::Result<File> {
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    if file.try_lock().is_err() {
        progress("another process is building Kubernetes: waiting for it");
        return tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await?.context("lock the cache");
    }
    Ok(file)
}

/// Go writes nowhere but into its own caches and the output: neither to go.mod nor to go.sum, and an outer go.work or
/// another target platform in the environment does not count. Its work folder, which it leaves when it is killed, goes
/// with the supervisor's.
fn go(supervisor: &Supervisor, modules: &Path, log: &str) -> Command {
    Command::new("go", supervisor.folder().join(log))
        .inherit_environment()
        .envs([("GOWORK", "off"), ("GOFLAGS", "-mod=readonly"), ("GOOS", ""), ("GOARCH", "")])
        .env("GOTMPDIR", supervisor.folder().to_string_lossy())
        .folder(modules)
}

async fn check_go(supervisor: &Supervisor, modules: &Path) -> anyhow::Result<()> {
    const INSTALL: &str = "install Go 1.26 or newer (https://go.dev/dl/), or set MCP_ENTRA_CONTROL_PLANE to a folder with \
        kube-apiserver, kube-controller-manager, kube-scheduler, kubectl and etcd";
    let command = go(supervisor, modules, "go-version.log").args(["env", "GOVERSION"]);
    let child = supervisor.spawn(command.clone()).await.with_context(|| format!("Go is missing: {INSTALL}"))?;
    let status = child.exited().await;
    let said = std::fs::read_to_string(command.log())?;
    ensure!(status.success(), "`go env GOVERSION` failed: {INSTALL}\n{said}");
    let version = said.lines().last().unwrap_or_default();
    ensure!(is_new_enough(version), "Go is too old ({version}): {INSTALL}");
    Ok(())
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches("go").split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= OLDEST_GO)
}

async fn run(supervisor: &Supervisor, command: Command, what: &str, begun: Instant) -> anyhow::Result<()> {
    let child = supervisor.spawn(command.clone()).await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(30));
    let status = loop {
        tokio::select! {
            status = child.exited() => break status,
            _ = ticks.tick() => progress(&format!("{what}, {} s so far", begun.elapsed().as_secs())),
        }
    };
    ensure!(
        status.success(),
        "building {what} failed:\n{}",
        std::fs::read_to_string(command.log()).unwrap_or_default()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_is_new_enough_from_1_26_on() {
        for version in ["go1.26", "go1.26.8", "go1.30.1", "go2.0", "go1.27rc1"] {
            assert!(is_new_enough(version), "{version}");
        }
        for version in ["go1.25.9", "go1.3", "devel", ""] {
            assert!(!is_new_enough(version), "{version}");
        }
    }

    #[test]
    fn a_named_folder_without_a_program_is_an_error_that_names_both() {
        let folder = tempfile::tempdir().unwrap();
        for (name, _) in PROGRAMS {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let named = |path: &Path| ControlPlanePrograms::named("KUBEBUILDER_ASSETS", path.to_owned());
        assert!(named(folder.path()).is_ok());
        std::fs::remove_file(folder.path().join("kube-scheduler")).unwrap();
        let error = named(folder.path()).unwrap_err().to_string();
        assert!(error.contains("KUBEBUILDER_ASSETS") && error.contains("no kube-scheduler"), "{error}");
    }
}
