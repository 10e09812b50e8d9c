//! `cargo xtask ci`: the checks that decide whether a change lands, in lanes that run alone or one after the other.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use image::Workspace;

use crate::{cargo, execute, generate, tools};

/// Some of the checks, which run alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Lane {
    /// Format, spelling, dependencies, generated files, lints, documentation and unit tests
    Fast,
    /// Every test, local mode with real clients, and MCP's conformance suite
    Cluster,
    /// The images, and the story on a real node that runs them; as root on Linux
    Node,
}

impl Lane {
    /// The Debian packages that the lane needs.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Fast => &[],
            // A session store, a program of the documentation's scripts, and a person's desktop.
            Self::Cluster => &["redis-server", "jq", "chromium", "dbus", "gnome-keyring"],
            // What a node takes from the machine; the rest is built or pinned.
            Self::Node => &["runc", "containernetworking-plugins", "iptables", "conntrack", "iproute2"],
        }
    }
}

/// Runs the checks of a lane, or of all, until one fails. Prints the seconds of each stage.
///
/// # Errors
/// If a check fails.
pub(crate) fn run(lane: Option<Lane>) -> anyhow::Result<()> {
    let workspace = Workspace::read()?;
    std::env::set_current_dir(&workspace.root).context("enter the workspace")?;
    let mut stages = Stages::default();
    if lane != Some(Lane::Fast) {
        tools::go()?;
    }
    let lanes = lane.as_ref().map_or(Lane::value_variants(), std::slice::from_ref);
    let packages: Vec<_> = lanes.iter().flat_map(|lane| lane.packages()).copied().collect();
    stages.run("packages", || tools::debian_packages(&packages))?;
    match lane {
        Some(Lane::Fast) => {
            checks(&mut stages, &workspace)?;
            stages.cargo("unit", &["test", "--locked", "--workspace", "--lib", "--bins"])?;
        }
        Some(Lane::Cluster) => {
            stages.cargo("test", &["test"])?;
            with_clients(&mut stages)?;
        }
        Some(Lane::Node) => {
            stages.run("image", || execute(Command::new(std::env::current_exe()?).arg("image")))?;
            stages.cargo("node", &["e2e-node"])?;
        }
        None => {
            // The images only use what the other stages leave. A node waits ten minutes for a token to age.
            let mut image = Command::new("nice");
            image.args(["-n", "5"]).arg(std::env::current_exe()?).arg("image");
            let images = Beside::start(&workspace, "images", image)?;
            checks(&mut stages, &workspace)?;
            stages.cargo("test", &["test"])?;
            stages.run("image", || images.finish())?;
            let mut story = cargo();
            story.arg("e2e-node");
            let node = Beside::start(&workspace, "node", story)?;
            with_clients(&mut stages)?;
            stages.run("node", || node.finish())?;
        }
    }
    println!("\n== all stages passed\n{}", stages.summary.join("\n"));
    Ok(())
}

/// The checks that run no test.
fn checks(stages: &mut Stages, workspace: &Workspace) -> anyhow::Result<()> {
    stages.cargo("format", &["fmt", "--all", "--check"])?;
    stages.run("typos", || execute(&mut Command::new(tools::linter(workspace, "typos")?)))?;
    let deny = ["--locked", "--workspace", "check", "bans", "licenses", "sources"];
    stages.run("deny", || execute(Command::new(tools::linter(workspace, "cargo-deny")?).args(deny)))?;
    stages.run("generated", || generate::run(true))?;
    stages.cargo("clippy", &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    stages.run("docs", || {
        execute(
            cargo()
                .args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    })
}

/// Local mode and the conformance suite, with real clients.
fn with_clients(stages: &mut Stages) -> anyhow::Result<()> {
    stages.cargo("local", &["e2e-local"])?;
    stages.cargo("conformance", &["conformance"])
}

/// The stages that ran, each with its seconds.
#[derive(Default)]
struct Stages {
    summary: Vec<String>,
}

impl Stages {
    fn run(&mut self, name: &str, stage: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        println!("\n== {name}");
        let start = Instant::now();
        stage().with_context(|| format!("stage {name}"))?;
        self.summary.push(format!("{name:<11} {:>5} s", start.elapsed().as_secs()));
        Ok(())
    }

    fn cargo(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        self.run(name, || execute(cargo().args(arguments)))
    }
}

/// A command beside the other stages, with its output in a file. It ends when this is dropped.
struct Beside {
    process: Child,
    log: PathBuf,
}

impl Beside {
    fn start(workspace: &Workspace, name: &str, mut command: Command) -> anyhow::Result<Self> {
        let log = workspace.target.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        command.stdout(output.try_clone()?).stderr(output);
        let process = command.spawn().with_context(|| format!("start the stage {name}"))?;
        Ok(Self { process, log })
    }

    fn finish(mut self) -> anyhow::Result<()> {
        let status = self.process.wait()?;
        print!("{}", fs::read_to_string(&self.log)?);
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let pid = self.process.id().to_string();
            // `cargo run` replaces its process, so SIGTERM reaches the node, which cleans up.
            drop(Command::new("kill").arg(pid).status());
            drop(self.process.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> String {
        fs::read_to_string(Workspace::read().unwrap().root.join(path)).unwrap()
    }

    #[test]
    fn the_hosted_workflow_runs_every_lane() {
        let workflow: serde_yaml::Value = serde_yaml::from_str(&file(".github/workflows/ci.yml")).unwrap();
        let mut hosted: Vec<_> = workflow["jobs"]
            .as_mapping()
            .unwrap()
            .values()
            .flat_map(|job| job["steps"].as_sequence().unwrap())
            .filter_map(|step| step["run"].as_str()?.strip_prefix(".ci/run "))
            .collect();
        let mut lanes: Vec<_> = Lane::value_variants().iter().map(|lane| lane.to_possible_value().unwrap()).collect();
        lanes.sort_by(|one, other| one.get_name().cmp(other.get_name()));
        hosted.sort_unstable();
        assert_eq!(hosted, lanes.iter().map(|lane| lane.get_name()).collect::<Vec<_>>());
    }

    #[test]
    fn the_pinned_toolchain_is_the_release_that_the_workspace_asks_for() {
        let release = env!("CARGO_PKG_RUST_VERSION");
        assert!(file("rust-toolchain.toml").contains(&format!("\nchannel = \"{release}.")));
    }
}
