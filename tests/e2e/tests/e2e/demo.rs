//! Tests of the demo: a complete run, and a run that Ctrl-C ends early.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Longest time without a line of output: Kubernetes may have to be built first.
const SILENCE: Duration = Duration::from_secs(30 * 60);

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_passes_keeps_running_and_leaves_nothing_behind_when_it_is_killed() -> anyhow::Result<()> {
    let program = tokio::task::spawn_blocking(|| testbed::programs::program("demo")).await??;
    let mut demo = tokio::process::Command::new(program).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(demo.stdout.take().context("its output")?).lines();
    let mut said = Vec::new();
    let folder = loop {
        let line = tokio::time::timeout(SILENCE, lines.next_line()).await.context("it says nothing")??;
        let line = line.with_context(|| format!("it ended:\n{}", said.join("\n")))?;
        if let Some(folder) = folder_of_kubeconfig(&line) {
            break folder;
        }
        said.push(line);
    };
    let steps = e2e::story::STEPS.len();
    let verdict = format!("demo: {steps} of {steps} steps passed in ");
    ensure!(said.iter().any(|line| line.starts_with(&verdict)), "it did not pass:\n{}", said.join("\n"));
    ensure!(folder.is_dir() && !processes_of(&folder)?.is_empty(), "nothing runs in {}", folder.display());

    demo.kill().await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let left = processes_of(&folder)?;
        if left.is_empty() && !folder.exists() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "left behind in {}: {left:?}", folder.display());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Folder of the testbed, two levels above the kubeconfig in the demo's output.
fn folder_of_kubeconfig(line: &str) -> Option<PathBuf> {
    let kubeconfig = line.split_whitespace().find(|word| word.ends_with(".kubeconfig"))?;
    Path::new(kubeconfig).ancestors().nth(2).map(Path::to_owned)
}

/// Command lines that name the folder: every part of the testbed has the path of its files as an argument.
fn processes_of(folder: &Path) -> anyhow::Result<Vec<String>> {
    let folder = folder.to_string_lossy();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        // A process that ends meanwhile has no command line any more.
        let Ok(line) = std::fs::read(entry?.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&*folder) {
            found.push(line);
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_of_a_laptop_passes_and_ends() -> anyhow::Result<()> {
    let program = tokio::task::spawn_blocking(|| testbed::programs::program("demo")).await??;
    let output = tokio::process::Command::new(program).args(["--local", "--exit"]).kill_on_drop(true).output();
    let output = tokio::time::timeout(SILENCE, output).await.context("it does not end")??;
    let said = String::from_utf8(output.stdout)?;
    let steps = e2e::laptop::STEPS.len();
    let verdict = format!("demo: {steps} of {steps} steps passed in ");
    ensure!(output.status.success() && said.contains(&verdict), "it did not pass:\n{said}");
    Ok(())
}
