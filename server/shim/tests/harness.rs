//! Running shim, and proof that processes have ended.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Timeout of a test's waits.
const DEADLINE: Duration = Duration::from_secs(30);

/// Patience for processes that end at once on request, even on a very busy machine.
const PATIENCE: Duration = DEADLINE;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mcp-entra-shim");

/// Listening shim. It is stopped and awaited when it is dropped.
pub(crate) struct Shim {
    process: Child,
    pub(crate) folder: TempDir,
    log: Receiver<String>,
}

impl Shim {
    /// Runs this script for each connection.
    pub(crate) fn of(script: &str) -> Self {
        Self::start(64, &["sh", "-c", script])
    }

    /// Runs this script, which ignores requests to end, for each connection.
    pub(crate) fn impatient(script: &str, patience: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut serve = serve_with(patience, &folder.path().join("backend.sock"), 64, &["sh", "-c", script]);
        Self::adopt(serve.spawn().unwrap(), folder)
    }

    pub(crate) fn start(max_processes: usize, command: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, max_processes, command)
    }

    pub(crate) fn start_in(folder: TempDir, max_processes: usize, command: &[&str]) -> Self {
        let process = serve(&folder.path().join("backend.sock"), max_processes, command).spawn().unwrap();
        Self::adopt(process, folder)
    }

    /// Wraps a shim that was started elsewhere on `backend.sock` in this folder, and waits until it listens.
    pub(crate) fn adopt(mut process: Child, folder: TempDir) -> Self {
        let log = lines(process.stderr.take().unwrap());
        let shim = Self { process, folder, log };
        shim.await_line("listening on");
        shim
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("backend.sock")
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let connection = UnixStream::connect(self.socket()).unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        connection.set_write_timeout(Some(DEADLINE)).unwrap();
        connection
    }

    /// Waits for a line of the log with this text.
    pub(crate) fn await_line(&self, text: &str) -> String {
        let mut before = Vec::new();
        loop {
            match self.log.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => before.push(line),
                Err(_) => panic!("the log has no {text:?} after {before:#?}"),
            }
        }
    }

    /// Returns the next line of the log, unless there is none for a moment.
    pub(crate) fn next_line(&self) -> Option<String> {
        self.log.recv_timeout(Duration::from_millis(500)).ok()
    }

    /// File that processes hold open while they live; for [`Holders`].
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    /// Connects, and makes the script hold a file as descriptor 9. Returns when it does.
    pub(crate) fn connect_holding(&self, name: &str) -> (UnixStream, Holders) {
        let (path, mut connection) = (self.fifo(name), self.connect());
        writeln!(connection, "{}", path.display()).unwrap();
        (connection, Holders::of(path))
    }

    pub(crate) fn ask_to_stop(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }

    pub(crate) fn await_exit(&mut self) -> ExitStatus {
        await_exit(&mut self.process)
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            self.ask_to_stop(Signal::SIGTERM);
            let _ = self.process.wait();
        }
    }
}

/// Holders of a pipe's writing end. The end of the pipe shows that all of them have ended.
pub(crate) struct Holders(File);

impl Holders {
    /// Waits for the first holder.
    fn of(path: PathBuf) -> Self {
        Self(within(move || File::open(path).unwrap()))
    }

    pub(crate) fn await_gone(mut self) {
        within(move || assert_eq!(self.0.read_to_end(&mut Vec::new()).unwrap(), 0));
    }

    pub(crate) fn are_there(&self) -> bool {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.0));
        let mut again = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).unwrap();
        again.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// Command that serves, with its log piped.
pub(crate) fn serve(socket: &Path, max_processes: usize, command: &[&str]) -> Command {
    serve_with(PATIENCE, socket, max_processes, command)
}

fn serve_with(patience: Duration, socket: &Path, max_processes: usize, command: &[&str]) -> Command {
    let (patience, max_processes) = (patience.as_millis().to_string(), max_processes.to_string());
    let mut serve = Command::new(PROGRAM);
    serve.args(["serve", "--max-processes", &max_processes, "--patience-ms", &patience]);
    serve.arg("--socket").arg(socket).arg("--").args(command).stdin(Stdio::null()).stderr(Stdio::piped());
    serve
}

/// Returns the bytes of a connection until its end.
pub(crate) fn rest(mut connection: &UnixStream) -> String {
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Returns the next line of a connection, without the bytes after it.
pub(crate) fn line(mut connection: &UnixStream) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while connection.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

pub(crate) fn await_exit(process: &mut Child) -> ExitStatus {
    std::thread::scope(|scope| {
        let (exited, deadline) = mpsc::channel();
        let pid = Pid::from_raw(process.id().cast_signed());
        scope.spawn(move || {
            if deadline.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let status = process.wait().unwrap();
        let _ = exited.send(());
        status
    })
}

/// Runs something that may block forever.
fn within<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || done.send(run()));
    result.recv_timeout(DEADLINE).unwrap()
}

fn lines(stderr: ChildStderr) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    lines
}
