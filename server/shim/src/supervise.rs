//! Starts the command for one connection. Ends it, including its descendants, with the connection.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::log::Log;
use crate::signals::{ChildSignals, StopSignals};
use crate::{children, delivery};

/// Time limit for the rest of the output, after the end of the connection or the shim.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// Command of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// Program and its arguments.
    pub command: Vec<OsString>,
    /// Time for it to end after its input was closed, and again after SIGTERM.
    pub patience: Duration,
}

/// Serves the connection, which is standard input, until it is closed, the process ends, or SIGTERM arrives.
///
/// # Errors
/// If standard input is not a socket, or the runtime cannot watch it.
pub async fn supervise(backend: &Backend, log: &Log) -> anyhow::Result<()> {
    set_child_subreaper(true).context("adopt orphans")?;
    let (mut stop, ended) = (StopSignals::take()?, ChildSignals::take()?);
    let (connection, watched) = (duplicate(io::stdin())?, duplicate(io::stdin())?);
    let Some(mut child) = start(backend, log) else { return Ok(()) };

    let asked = CancellationToken::new();
    let tasks = Tasks::start(&mut child, connection, log, &asked)?;
    let input = tasks.input.abort_handle();
    let end_asked = asked.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = delivery::hung_up(&watched) => {}
            // The connection is still open, so its copy would keep the process's input open.
            () = stop.asked() => input.abort(),
        }
        end_asked.cancel();
    });

    let pid = pid(&child);
    let mut process = Process { child, ended };
    tokio::select! {
        status = process.ended() => log.say(format_args!("process {pid} ended by itself: {status}")),
        () = asked.cancelled() => {
            let status = process.end(backend.patience).await;
            log.say(format_args!("process {pid} ended after its connection: {status}"));
        }
    }
    if timeout(backend.patience, process.kill_rest()).await.is_err() {
        log.say(format_args!("processes that {pid} started do not end"));
    }
    tasks.finish(&asked).await;
    Ok(())
}

/// Duplicate of the connection.
fn duplicate(socket: impl AsFd) -> anyhow::Result<UnixStream> {
    let connection = StdUnixStream::from(socket.as_fd().try_clone_to_owned()?);
    connection.set_nonblocking(true)?;
    UnixStream::from_std(connection).context("standard input must be a connection")
}

/// Starts the command as the leader of its own group. If it does not start, the log has the reason.
fn start(backend: &Backend, log: &Log) -> Option<Child> {
    let (program, arguments) = backend.command.split_first()?;
    let pipes = || Stdio::piped();
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).stdin(pipes()).stdout(pipes()).stderr(pipes());
    match command.spawn() {
        Ok(child) => {
            log.say(format_args!("process {} started: {}", child.id(), program.display()));
            Some(child)
        }
        Err(error) => {
            log.say(format_args!(
                "closed a connection: cannot start {}: {error}; {}",
                program.display(),
                next_step(&error)
            ));
            None
        }
    }
}

fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "spec.backend.command must name a program of the image, by its path or by a name in PATH; a script also needs \
             the interpreter of its first line"
        }
        io::ErrorKind::PermissionDenied => {
            "spec.backend.command must name a file that spec.backend.runAsUser may execute"
        }
        // The library's name of the error is not stable.
        _ if error.raw_os_error() == Some(nix::errno::Errno::ENOEXEC as i32) => {
            "spec.backend.command must name a program for this node's architecture, or a script with `#!` in its first line"
        }
        _ => "see spec.backend.command, and the limits of the pod",
    }
}

/// Id of a child.
pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Process of the connection, with its descendants.
struct Process {
    child: Child,
    ended: ChildSignals,
}

impl Process {
    /// Waits until the process has ended. Remaining members of its group are killed before its id can be reused.
    async fn ended(&mut self) -> ExitStatus {
        let leader = pid(&self.child);
        loop {
            children::reap_others(|child| child == leader);
            if children::has_ended(leader) {
                children::signal_group(leader, Signal::SIGKILL);
                if let Ok(Some(status)) = self.child.try_wait() {
                    return status;
                }
            }
            self.ended.next().await;
        }
    }

    /// Ends the process, whose input is closed.
    async fn end(&mut self, patience: Duration) -> ExitStatus {
        let leader = pid(&self.child);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if let Ok(status) = timeout(patience, self.ended()).await {
                return status;
            }
            children::signal_group(leader, signal);
        }
        self.ended().await
    }

    /// Kills descendants outside of the process's group, and waits until all have ended.
    async fn kill_rest(&mut self) {
        while children::kill_others(|_| false) > 0 {
            self.ended.next().await;
        }
    }
}

/// Tasks that pass bytes.
struct Tasks {
    input: JoinHandle<()>,
    output: JoinHandle<()>,
    errors: JoinHandle<()>,
}

impl Tasks {
    /// Starts to pass bytes. Requests the end when the connection accepts no more output.
    fn start(child: &mut Child, connection: UnixStream, log: &Log, asked: &CancellationToken) -> anyhow::Result<Self> {
        let (from_companion, to_companion) = connection.into_split();
        let stdin = pipe::Sender::from_owned_fd(child.stdin.take().context("standard input")?.into())?;
        let stdout = pipe::Receiver::from_owned_fd(child.stdout.take().context("standard output")?.into())?;
        let stderr = pipe::Receiver::from_owned_fd(child.stderr.take().context("standard error")?.into())?;
        let input = tokio::spawn(async move {
            // It fails if the process does not read any more. The process may still answer.
            let _ = delivery::pass(from_companion, stdin).await;
        });
        let asked = asked.clone();
        let output = tokio::spawn(async move {
            // A companion that only closes its reading half is noticed when there is room for the next output.
            if delivery::pass(stdout, to_companion).await.is_err() {
                asked.cancel();
            }
        });
        let (log, pid) = (log.clone(), child.id());
        let errors = tokio::spawn(delivery::drain(stderr, move |line| log.line(format!("[pid {pid}] {line}"))));
        Ok(Self { input, output, errors })
    }

    /// Delivers the output of the ended process, at the companion's speed until the end is requested.
    async fn finish(self, asked: &CancellationToken) {
        self.input.abort();
        for task in [self.output, self.errors] {
            within(task, asked).await;
        }
    }
}

/// Waits for a task, for at most [`LAST_OUTPUT`] after the end was requested.
async fn within(task: impl Future, asked: &CancellationToken) {
    tokio::select! {
        _ = task => {}
        () = async { asked.cancelled().await; sleep(LAST_OUTPUT).await } => {}
    }
}
