//! Listens, and starts a supervisor for each connection.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::children;
use crate::log::{Log, SHIM};
use crate::signals::{ChildSignals, StopSignals};
use crate::socket::Socket;
use crate::supervise::{Backend, pid};

/// Pause after a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for supervisors to stop, besides two patiences: they need a second for last output and log lines.
const STOP_SPARE: Duration = Duration::from_millis(1250);

/// Time limit for killed processes to end.
const KILLED: Duration = Duration::from_millis(250);

/// Options of the shim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Path of the socket.
    pub socket: PathBuf,
    /// Maximum number of concurrent connections.
    pub max_processes: NonZeroUsize,
    /// Command of each connection.
    pub backend: Backend,
}

/// Serves until SIGTERM or SIGINT, then ends every process: within 8 seconds with the default patience.
///
/// # Errors
/// If the socket cannot be made.
pub async fn serve(options: &Options, log: &Log) -> anyhow::Result<()> {
    set_child_subreaper(true).context("adopt orphans")?;
    let (mut stop, mut ended) = (StopSignals::take()?, ChildSignals::take()?);
    let socket = Socket::listen(&options.socket)?;
    let mut supervisors = Supervisors { options, log, running: BTreeMap::new() };
    log.say(format_args!("listening on {}, for at most {} processes", options.socket.display(), options.max_processes));
    loop {
        tokio::select! {
            () = stop.asked() => break,
            () = ended.next() => {
                supervisors.reap();
            }
            accepted = socket.accept() => match accepted {
                Ok(connection) => supervisors.admit(connection),
                Err(error) => {
                    log.say(format_args!("cannot accept a connection: {error}"));
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(socket);
    log.say(format_args!("stopping; processes to end: {}", supervisors.running.len()));
    supervisors.end(&mut ended).await;
    Ok(())
}

/// Running supervisors.
struct Supervisors<'run> {
    options: &'run Options,
    log: &'run Log,
    running: BTreeMap<Pid, Child>,
}

impl Supervisors<'_> {
    /// Starts a supervisor for a connection, or closes the connection.
    fn admit(&mut self, connection: UnixStream) {
        let most = self.options.max_processes.get();
        if self.running.len() >= most {
            self.log.say(format_args!("closed a connection: {most} processes run, and --max-processes allows no more"));
            return;
        }
        match self.start(connection) {
            Ok(supervisor) => {
                self.running.insert(pid(&supervisor), supervisor);
            }
            Err(error) => self.log.say(format_args!("closed a connection: cannot start its supervisor: {error:#}")),
        }
    }

    fn start(&self, connection: UnixStream) -> anyhow::Result<Child> {
        // The running file, even if another one has replaced it at its path.
        let started = Command::new("/proc/self/exe")
            .args(["supervise", "--patience-ms", &self.options.backend.patience.as_millis().to_string(), "--"])
            .args(&self.options.backend.command)
            .stdin(OwnedFd::from(connection.into_std()?))
            .stdout(Stdio::null())
            .spawn();
        started.with_context(|| format!("run {SHIM}"))
    }

    /// Forgets supervisors that have ended. Processes without a supervisor had one that was killed, and are killed,
    /// too. Returns the number of those that still exist.
    fn reap(&mut self) -> usize {
        self.running.retain(|pid, supervisor| match supervisor.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                if let Some(signal) = status.signal() {
                    self.log.say(format_args!("the supervisor {pid} was killed by signal {signal}; so is its process"));
                }
                false
            }
            Err(_) => false,
        });
        children::kill_others(|pid| self.running.contains_key(&pid))
    }

    /// Requests every supervisor to stop, and kills those that do not stop in time.
    async fn end(&mut self, ended: &mut ChildSignals) {
        for supervisor in self.running.keys() {
            children::signal_one(*supervisor, Signal::SIGTERM);
        }
        let patience = 2 * self.options.backend.patience + STOP_SPARE;
        if timeout(patience, self.gone(ended)).await.is_err() {
            self.log.say(format_args!("killing supervisors that did not stop in time: {}", self.running.len()));
            self.running.clear();
            let _ = timeout(KILLED, self.gone(ended)).await;
        }
    }

    /// Waits until all processes have ended.
    async fn gone(&mut self, ended: &mut ChildSignals) {
        while self.reap() > 0 || !self.running.is_empty() {
            ended.next().await;
        }
    }
}
