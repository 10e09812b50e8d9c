//! Child processes that end with the test process, however it ends. Nothing stays behind, even after SIGKILL.
//!
//! The children belong to a separate process, `testbed-supervisor`, which waits on a pipe from the test process. The
//! pipe closes when [`Supervisor::stop`] is called, the last handle is dropped or the test process dies. Then the
//! supervisor ends every child in reverse order (SIGTERM, a moment, SIGKILL, to the child's whole process group), and
//! removes the state folder. Handles may be used from any thread and any tokio runtime.

pub mod service;
mod wire;

use std::collections::HashMap;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::sys::signal::Signal;
use tokio::sync::{oneshot, watch};

pub use wire::{Command, ExitStatus};
use wire::{Event, Request};

/// Handle on the process that keeps our children; clones share it.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    next: AtomicU64,
    input: Mutex<Option<ChildStdin>>,
    state: Arc<State>,
}

struct State {
    /// `None` after the supervisor's end.
    children: Mutex<Option<HashMap<u64, Entry>>>,
    gone: watch::Sender<bool>,
}

struct Entry {
    /// Answered once, with the process id or the reason of the failure.
    started: Option<oneshot::Sender<Result<u32, String>>>,
    exited: watch::Sender<Option<ExitStatus>>,
}

impl Supervisor {
    /// Starts the supervisor and makes the state folder. Builds the program first if it is missing.
    ///
    /// # Errors
    /// If the program cannot be built or started, or the folder cannot be made.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_program(&crate::programs::supervisor()?)
    }

    /// Starts the supervisor from a built program (in a test of this crate,
    /// `env!("CARGO_BIN_EXE_testbed-supervisor")`).
    ///
    /// # Errors
    /// If it cannot be started, or the folder cannot be made.
    pub fn start_program(program: &Path) -> anyhow::Result<Self> {
        let mut process = std::process::Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Out of the terminal's foreground group: Ctrl-C ends us, and the supervisor waits for our end.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let input = process.stdin.take();
        let mut events = BufReader::new(process.stdout.take().context("the supervisor's output")?).lines();
        let folder = match events.next().map(|line| parse(&line?)) {
            Some(Ok(Event::Started { folder })) => folder,
            _ => bail!("testbed-supervisor did not start; stderr has the reason"),
        };
        let state = Arc::new(State { children: Mutex::new(Some(HashMap::new())), gone: watch::Sender::new(false) });
        let listener = Arc::clone(&state);
        std::thread::spawn(move || {
            listener.listen(events);
            let _ = process.wait();
            listener.gone.send_replace(true);
        });
        Ok(Self(Arc::new(Inner { folder, next: AtomicU64::new(0), input: Mutex::new(input), state })))
    }

    /// State folder, readable only by our user and removed at the end.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Starts a child. It lives until it exits, is killed, or the supervisor ends; dropping the handle does not end it.
    ///
    /// # Errors
    /// If the program or its log cannot be opened, or the supervisor is gone.
    pub async fn spawn(&self, command: Command) -> anyhow::Result<Child> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (started, answer) = oneshot::channel();
        let (exited, status) = watch::channel(None);
        match lock(&self.0.state.children).as_mut() {
            Some(children) => children.insert(id, Entry { started: Some(started), exited }),
            None => bail!("testbed-supervisor has ended"),
        };
        self.0.send(&Request::Spawn { id, command })?;
        let pid = answer.await.map_err(|_| anyhow!("testbed-supervisor has ended"))?.map_err(|error| anyhow!(error))?;
        Ok(Child { supervisor: self.clone(), id, pid, status })
    }

    /// Ends every child and removes the state folder; returns when that is done.
    pub async fn stop(&self) {
        drop(lock(&self.0.input).take());
        let mut gone = self.0.state.gone.subscribe();
        // The sender lives as long as we do.
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

impl Inner {
    fn send(&self, request: &Request) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        lock(&self.input)
            .as_mut()
            .context("testbed-supervisor was stopped")?
            .write_all(&line)
            .context("testbed-supervisor has ended")
    }
}

impl State {
    fn listen(&self, events: std::io::Lines<BufReader<ChildStdout>>) {
        for line in events.map_while(Result::ok) {
            match parse(&line) {
                Ok(event) => self.handle(event),
                Err(error) => tracing::error!(line, "from testbed-supervisor: {error:#}"),
            }
        }
        // Closed channels inform all waiting callers.
        lock(&self.children).take();
    }

    fn handle(&self, event: Event) {
        let mut children = lock(&self.children);
        let Some(children) = children.as_mut() else {
            return;
        };
        let mut answer = |id, result| {
            if let Some(started) = children.get_mut(&id).and_then(|entry| entry.started.take()) {
                let _ = started.send(result);
            }
        };
        match event {
            Event::Started { .. } => {}
            Event::Spawned { id, pid } => answer(id, Ok(pid)),
            Event::Refused { id, error } => {
                answer(id, Err(error));
                children.remove(&id);
            }
            Event::Exited { id, status } => {
                if let Some(entry) = children.remove(&id) {
                    entry.exited.send_replace(Some(status));
                }
            }
        }
    }
}

/// Process kept by the supervisor. Clones are handles on the same process.
#[derive(Clone)]
pub struct Child {
    supervisor: Supervisor,
    id: u64,
    pid: u32,
    status: watch::Receiver<Option<ExitStatus>>,
}

impl Child {
    /// Id of the process, and of its process group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends SIGTERM, and SIGKILL if it still runs after `grace`; returns how it ended.
    pub async fn terminate(&self, grace: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        match tokio::time::timeout(grace, self.exited()).await {
            Ok(status) => status,
            Err(_) => self.kill().await,
        }
    }

    /// Sends SIGKILL; returns how it ended.
    pub async fn kill(&self) -> ExitStatus {
        self.signal(Signal::SIGKILL);
        self.exited().await
    }

    /// Waits for its end.
    pub fn exited(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        let mut status = self.status.clone();
        async move {
            let ended = status.wait_for(Option::is_some).await;
            ended.ok().and_then(|status| *status).unwrap_or(ExitStatus::UNKNOWN)
        }
    }

    /// Returns how it ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        let status = *self.status.borrow();
        status.or_else(|| self.status.has_changed().err().map(|_| ExitStatus::UNKNOWN))
    }

    fn signal(&self, signal: Signal) {
        // Without the supervisor there is no child, and the wait for its end returns at once.
        let _ = self.supervisor.0.send(&Request::Signal { id: self.id, signal: signal as i32 });
    }
}

fn parse(line: &str) -> anyhow::Result<Event> {
    Ok(serde_json::from_str(line)?)
}

/// Locks a map. A panic of another holder leaves these maps valid.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
