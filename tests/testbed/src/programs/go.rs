//! Programs built from Go modules. They come from a folder that an environment variable names, otherwise from the
//! cache. There, each set is built once from the modules that a go.mod below `tests/control-plane` pins.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use super::{progress, workspace};
use crate::supervisor::{Command, Supervisor};

/// Linker flags for the version, as in the build of Kubernetes. Without them `kubectl version` prints v0.0.0.
const KUBERNETES_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37";
/// Oldest Go version that works, as every go.mod requires.
const OLDEST_GO: (u32, u32) = (1, 26);

/// Set of programs that are built and stored together.
#[derive(Debug)]
pub struct GoProgramSet {
    /// Name of the set, for people.
    what: &'static str,
    /// Folder in the cache.
    cache: &'static str,
    /// Folder of the go.mod.
    module: &'static str,
    /// File names and Go packages, the slowest first.
    programs: &'static [(&'static str, &'static str)],
    linker_flags: &'static str,
    /// Build time on 2 cores with an empty Go cache, in minutes.
    minutes: &'static str,
    /// Environment variables that may name a folder with these programs instead.
    folder_variables: &'static [&'static str],
}

/// Programs of every cluster.
pub const CONTROL_PLANE: GoProgramSet = GoProgramSet {
    what: "Kubernetes v1.37.2",
    cache: "control-plane",
    module: "tests/control-plane",
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ("etcd", "go.etcd.io/etcd/server/v3"),
    ],
    linker_flags: KUBERNETES_FLAGS,
    minutes: "6 to 11",
    folder_variables: &["MCP_ENTRA_CONTROL_PLANE", "KUBEBUILDER_ASSETS"],
};

/// Additional programs of a node that runs containers.
pub const NODE: GoProgramSet = GoProgramSet {
    what: "kubelet and kube-proxy v1.37.2",
    cache: "node",
    module: "tests/control-plane",
    programs: &[("kubelet", "k8s.io/kubernetes/cmd/kubelet"), ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy")],
    linker_flags: KUBERNETES_FLAGS,
    minutes: "1",
    folder_variables: &[],
};

/// Container runtime of such a node. It uses runc of the machine.
pub const CONTAINERD: GoProgramSet = GoProgramSet {
    what: "containerd v2.4.2",
    cache: "containerd",
    module: "tests/control-plane/containerd",
    programs: &[
        ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
        ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
        ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    ],
    linker_flags: "-s -w",
    minutes: "1",
    folder_variables: &[],
};

/// DNS server of such a node's cluster.
pub const COREDNS: GoProgramSet = GoProgramSet {
    what: "CoreDNS",
    cache: "coredns",
    module: "tests/control-plane/coredns",
    programs: &[("coredns", ".")],
    linker_flags: "-s -w",
    minutes: "1",
    folder_variables: &[],
};

/// Enforcer of the NetworkPolicies of such a node's pods.
pub const NETWORK_POLICIES: GoProgramSet = GoProgramSet {
    what: "kube-network-policies v0.8.0",
    cache: "network-policies",
    module: "tests/control-plane/network-policies",
    programs: &[("network-policies", ".")],
    linker_flags: "-s -w",
    minutes: "1",
    folder_variables: &[],
};

/// Helm, which installs the charts.
pub const HELM: GoProgramSet = GoProgramSet {
    what: "Helm v4.3.1",
    cache: "helm",
    module: "tests/control-plane/helm",
    programs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
    linker_flags: "-s -w",
    minutes: "2",
    folder_variables: &[],
};

/// Folder with the programs of a set.
#[derive(Debug, Clone)]
pub struct GoPrograms {
    folder: PathBuf,
}

impl GoPrograms {
    /// Finds or builds the programs of a set, with messages on stderr. Concurrent callers wait for the same build.
    ///
    /// # Errors
    /// If an environment variable names a folder that lacks one of them, Go is missing or too old, or the build fails.
    pub async fn find_or_build(supervisor: &Supervisor, set: &GoProgramSet) -> anyhow::Result<Self> {
        for variable in set.folder_variables {
            if let Some(folder) = std::env::var_os(variable).filter(|folder| !folder.is_empty()) {
                return Self::named(set, variable, folder.into());
            }
        }
        let folder = cache()?.join("mcp-entra").join(set.cache).join(key(set)?);
        if !folder.is_dir() {
            build(supervisor, set, &folder).await?;
        }
        Ok(Self { folder })
    }

    fn named(set: &GoProgramSet, variable: &str, folder: PathBuf) -> anyhow::Result<Self> {
        for (name, _) in set.programs {
            ensure!(
                folder.join(name).is_file(),
                "{variable} names {}, which has no {name}: add it, or unset the variable to have it built from Go modules",
                folder.display()
            );
        }
        Ok(Self { folder })
    }

    /// Path of one of the set's programs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Folder with all programs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn cache() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_CACHE_HOME")
        .or_else(|| Some(set("HOME")?.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME names a folder to keep the control plane in")
}

/// The name depends on versions, sources and flags, since other programs result from others.
fn key(set: &GoProgramSet) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    for name in ["go.mod", "go.sum", "main.go"] {
        let path = workspace().join(set.module).join(name);
        match std::fs::read(&path) {
            Ok(content) => hash.update(content),
            // Most modules only pin programs of others.
            Err(error) if name == "main.go" && error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    hash.update(set.linker_flags);
    for (name, package) in set.programs {
        hash.update(format!("{name}={package}\n"));
    }
    Ok(hex::encode(hash.finalize()).chars().take(16).collect())
}

async fn build(supervisor: &Supervisor, set: &GoProgramSet, folder: &Path) -> anyhow::Result<()> {
    let parent = folder.parent().context("the cache folder")?;
    std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    let _lock = lock(folder.with_extension("lock"), set.what).await?;
    if folder.is_dir() {
        return Ok(());
    }
    let module = workspace().join(set.module);
    check_go(supervisor, &module).await?;
    // This process holds the lock, so that a remaining folder is from an interrupted build.
    let partial = folder.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    std::fs::create_dir(&partial).with_context(|| format!("make {}", partial.display()))?;
    let begun = Instant::now();
    progress(&format!(
        "building {} once, into {}: about {} min on 2 cores with an empty Go cache",
        set.what,
        folder.display(),
        set.minutes
    ));
    for (position, (name, package)) in set.programs.iter().enumerate() {
        let what = format!("{name} ({} of {})", position + 1, set.programs.len());
        let arguments = ["build", "-trimpath", "-ldflags", set.linker_flags, "-o"];
        let output = partial.join(name);
        let command =
            go(supervisor, &module, "go-build.log").args(arguments).args([output.to_string_lossy(), (*package).into()]);
        run(supervisor, command, &what, begun).await?;
    }
    std::fs::rename(&partial, folder).with_context(|| format!("publish {}", folder.display()))?;
    progress(&format!("built {} in {} s", set.what, begun.elapsed().as_secs()));
    Ok(())
}

/// Lock that is held until it is dropped, or this process ends.
async fn lock(path: PathBuf, what: &str) -> anyhow::Result<File> {
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    if file.try_lock().is_err() {
        progress(&format!("another process is building {what}: waiting for it"));
        return tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await?.context("lock the cache");
    }
    Ok(file)
}

/// Go writes only to its own caches and the output, neither to go.mod nor to go.sum. An outer go.work or another target
/// platform in the environment has no effect. Go leaves its work folder when it is killed; the folder is removed with
/// the supervisor's.
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
        for (name, _) in CONTROL_PLANE.programs {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let named = |path: &Path| GoPrograms::named(&CONTROL_PLANE, "KUBEBUILDER_ASSETS", path.to_owned());
        assert!(named(folder.path()).is_ok());
        std::fs::remove_file(folder.path().join("kube-scheduler")).unwrap();
        let error = named(folder.path()).unwrap_err().to_string();
        assert!(error.contains("KUBEBUILDER_ASSETS") && error.contains("no kube-scheduler"), "{error}");
    }
}
