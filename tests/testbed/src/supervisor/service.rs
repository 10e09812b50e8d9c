//! Process of the supervisor: it is the parent of every child, and ends them when its standard input closes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::wire::{Command, Event, ExitStatus, Request};

/// Time for one child to end by itself at the end, and for all of them together.
const GRACE_EACH: Duration = Duration::from_secs(1);
const GRACE_ALL: Duration = Duration::from_secs(5);

/// Runs until standard input closes (or SIGTERM, SIGINT or SIGHUP), then ends every child and removes the state folder.
///
/// # Errors
/// If the state folder cannot be made or removed.
pub fn run() -> anyhow::Result<()> {
    // Only our user may read the children's files: mode 0700.
    let folder = tempfile::Builder::new()
        .prefix("mcp-entra-testbed-")
        .tempdir()
        .context("make a state folder: is TMPDIR writable?")?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(folder.path()))?;
    remove(folder)
}

async fn serve(folder: &Path) -> anyhow::Result<()> {
    let mut requests = read_requests();
    let mut signals = JoinSet::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        let mut arrived = signal(kind)?;
        signals.spawn(async move { arrived.recv().await });
    }
    report(&Event::Started { folder: folder.to_owned() });

    let mut children = Children::default();
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => children.handle(request),
                None => break,
            },
            Some(exited) = children.running.join_next() => children.forget(exited?),
            _ = signals.join_next() => break,
        }
    }
    children.end_all().await;
    Ok(())
}

/// Reads standard input on its own thread, since it has no cancellable asynchronous read.
fn read_requests() -> mpsc::Receiver<Request> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(request) => {
                    if sender.blocking_send(request).is_err() {
                        break;
                    }
                }
                Err(error) => eprintln!("testbed-supervisor: {error} in: {line}"),
            }
        }
    });
    receiver
}

/// Sends an event. An error is ignored: if the other end is gone, standard input closes soon.
fn report(event: &Event) {
    if let Ok(line) = serde_json::to_string(event) {
        let mut output = std::io::stdout().lock();
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    }
}

#[derive(Default)]
struct Children {
    /// Children by id. Ids grow, so this is the order of their starts.
    signals: BTreeMap<u64, mpsc::UnboundedSender<Signal>>,
    running: JoinSet<(u64, ExitStatus)>,
}

impl Children {
    fn handle(&mut self, request: Request) {
        match request {
            Request::Spawn { id, command } => match start(&command) {
                Ok(child) => {
                    report(&Event::Spawned { id, pid: child.id().unwrap_or_default() });
                    let (sender, receiver) = mpsc::unbounded_channel();
                    self.signals.insert(id, sender);
                    self.running.spawn(attend(id, child, receiver));
                }
                Err(error) => report(&Event::Refused { id, error: format!("{error:#}") }),
            },
            Request::Signal { id, signal } => {
                if let (Some(child), Ok(signal)) = (self.signals.get(&id), Signal::try_from(signal)) {
                    let _ = child.send(signal);
                }
            }
        }
    }

    fn forget(&mut self, (id, status): (u64, ExitStatus)) {
        self.signals.remove(&id);
        report(&Event::Exited { id, status });
    }

    /// Ends the children in reverse order, since later ones depend on earlier ones.
    async fn end_all(&mut self) {
        let deadline = Instant::now() + GRACE_ALL;
        while let Some((id, child)) = self.signals.pop_last() {
            let _ = child.send(Signal::SIGTERM);
            let until = deadline.min(Instant::now() + GRACE_EACH);
            if timeout_at(until, self.wait_for(id)).await.is_err() {
                let _ = child.send(Signal::SIGKILL);
                self.wait_for(id).await;
            }
        }
    }

    async fn wait_for(&mut self, wanted: u64) {
        while let Some(exited) = self.running.join_next().await {
            let Ok((id, _)) = exited else { continue };
            self.signals.remove(&id);
            if id == wanted {
                return;
            }
        }
    }
}

fn start(command: &Command) -> anyhow::Result<Child> {
    let log = open_log(&command.log)?;
    let mut process = tokio::process::Command::new(&command.program);
    if !command.inherit_environment {
        process.env_clear();
    }
    if let Some(folder) = &command.folder {
        process.current_dir(folder);
    }
    process
        .args(&command.arguments)
        .envs(&command.environment)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C on a terminal reaches the whole foreground group. The supervisor must decide the order in which
        // children end.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", command.program.display()))
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("open the log {}", path.display()))
}

/// Owns one child. All signals to it pass through here, so that none reaches a reused process id.
async fn attend(id: u64, mut child: Child, mut signals: mpsc::UnboundedReceiver<Signal>) -> (u64, ExitStatus) {
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = signals.recv() => send(group, signal),
        }
    };
    // Remaining processes of its group end with it, as in a container.
    send(group, Signal::SIGKILL);
    let status =
        status.map_or(ExitStatus::UNKNOWN, |status| ExitStatus { code: status.code(), signal: status.signal() });
    (id, status)
}

fn send(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = killpg(group, signal);
    }
}

/// Removes the folder. A process that escaped its group may create a file meanwhile.
fn remove(folder: tempfile::TempDir) -> anyhow::Result<()> {
    let path = folder.keep();
    for _ in 0..10 {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                std::thread::sleep(Duration::from_millis(50));
            }
            _ => return Ok(()),
        }
    }
    std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))
}
