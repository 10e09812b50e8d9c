//! Tests that processes end in time, and that nothing of them remains.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use testbed::supervisor::{Command, ExitStatus, Supervisor};

use crate::{SUPERVISOR, until};

fn start() -> Supervisor {
    Supervisor::start_program(Path::new(SUPERVISOR)).unwrap()
}

fn shell(supervisor: &Supervisor, name: &str, script: &str) -> Command {
    Command::new("/bin/sh", supervisor.folder().join(name)).args(["-c", script])
}

fn exists(pid: u32) -> bool {
    // An ended process stays a zombie until its parent has waited for it.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn an_exit_code_and_the_output_are_kept() {
    let supervisor = start();
    let command = shell(&supervisor, "log", "echo $WORD; echo bad >&2; exit 3").env("WORD", "good");
    let child = supervisor.spawn(command.clone()).await.unwrap();
    assert_eq!(child.exited().await, ExitStatus { code: Some(3), signal: None });
    assert_eq!(std::fs::read_to_string(command.log()).unwrap(), "good\nbad\n");
}

#[tokio::test]
async fn the_environment_is_empty_unless_inherited() {
    let supervisor = start();
    let bare = shell(&supervisor, "bare", "test -z \"$CARGO_MANIFEST_DIR\"");
    let child = supervisor.spawn(bare.clone()).await.unwrap();
    assert!(child.exited().await.success());
    let child = supervisor.spawn(bare.inherit_environment()).await.unwrap();
    assert_eq!(child.exited().await.code, Some(1));
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_an_error_that_names_it() {
    let supervisor = start();
    let command = Command::new("/nowhere/to/be/found", supervisor.folder().join("log"));
    let error = supervisor.spawn(command).await.err().unwrap().to_string();
    assert!(error.contains("/nowhere/to/be/found"), "{error}");
}

#[tokio::test]
async fn termination_is_graceful_first_and_forced_after_the_grace_period() {
    let supervisor = start();
    let polite = shell(&supervisor, "polite", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done");
    let stubborn = shell(&supervisor, "stubborn", "trap '' TERM; echo up; while :; do sleep 0.05; done");
    for (command, wanted, grace) in [
        (polite, ExitStatus { code: Some(7), signal: None }, 20),
        (stubborn, ExitStatus { code: None, signal: Some(9) }, 0),
    ] {
        let child = supervisor.spawn(command.clone()).await.unwrap();
        until("it is up", async || std::fs::read_to_string(command.log()).is_ok_and(|log| !log.is_empty())).await;
        assert_eq!(child.terminate(Duration::from_secs(grace)).await, wanted);
    }
}

#[tokio::test]
async fn remaining_processes_of_a_child_end_with_it() {
    let supervisor = start();
    let command = shell(&supervisor, "log", "sleep 1000 & echo $!");
    let child = supervisor.spawn(command.clone()).await.unwrap();
    assert!(child.exited().await.success());
    let left: u32 = std::fs::read_to_string(command.log()).unwrap().trim().parse().unwrap();
    until("the grandchild is gone", async || !exists(left)).await;
}

#[tokio::test]
async fn the_last_started_is_ended_first() {
    let supervisor = start();
    let kept = tempfile::tempdir().unwrap();
    let order = kept.path().join("order");
    for name in ["first", "second", "third"] {
        let script = format!("trap 'echo {name} >> order; exit' TERM; touch {name}; while :; do sleep 0.02; done");
        let command = Command::new("/bin/sh", "/dev/null").args(["-c", script.as_str()]).folder(kept.path());
        supervisor.spawn(command).await.unwrap();
        until("its trap is set", async || kept.path().join(name).exists()).await;
    }
    let folder = supervisor.folder().to_owned();
    supervisor.stop().await;
    assert_eq!(std::fs::read_to_string(&order).unwrap(), "third\nsecond\nfirst\n");
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_stopped_supervisor_starts_no_child() {
    let supervisor = start();
    supervisor.stop().await;
    let command = Command::new("/bin/true", "/dev/null");
    assert!(supervisor.spawn(command).await.is_err());
}

/// Starts this test again as the process to kill. With `HOLD` set it starts children, prints them, and waits.
#[tokio::test]
async fn a_killed_test_process_leaves_no_process_and_no_folder() {
    if std::env::var_os("TESTBED_HOLD").is_some() {
        return hold().await;
    }
    let mut holder = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("supervisor::a_killed_test_process_leaves_no_process_and_no_folder")
        .env("TESTBED_HOLD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find_map(|line| Some(line.split_once("HELD ")?.1.to_owned())).unwrap();
    let (pids, folder): (Vec<u32>, PathBuf) = serde_json::from_str(&line).unwrap();
    assert!(pids.iter().all(|pid| exists(*pid)) && folder.exists());

    holder.kill().unwrap();
    holder.wait().unwrap();
    until("nothing is left", async || !folder.exists() && !pids.iter().any(|pid| exists(*pid))).await;
}

async fn hold() {
    let supervisor = start();
    let mut pids = Vec::new();
    // One ends on request, the other does not.
    for (name, script) in [("polite", "sleep 1000"), ("stubborn", "trap '' TERM; while :; do sleep 0.05; done")] {
        let child = supervisor.spawn(shell(&supervisor, name, script)).await.unwrap();
        pids.push(child.pid());
    }
    println!("HELD {}", serde_json::to_string(&(pids, supervisor.folder())).unwrap());
    std::future::pending().await
}
