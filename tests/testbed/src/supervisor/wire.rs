//! What a test process and its supervisor say to each other: JSON, a line each.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// From the test process, on the supervisor's standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Start a child; answered by `Spawned` or `Refused` with the same id.
    Spawn { id: u64, command: Command },
    /// Send a signal to the child's process group; nothing happens when it has ended.
    Signal { id: u64, signal: i32 },
}

/// From the supervisor, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// The first line: the state folder exists.
    Started {
        folder: PathBuf,
    },
    Spawned {
        id: u64,
        pid: u32,
    },
    Refused {
        id: u64,
        error: String,
    },
    Exited {
        id: u64,
        status: ExitStatus,
    },
}

/// A program to run: in a process group of its own, its standard input empty, its output appended to a log file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) inherit_environment: bool,
    pub(super) folder: Option<PathBuf>,
    pub(super) log: PathBuf,
}

impl Command {
    /// A program with no arguments and an empty environment, whose output and errors are appended to the file `log`.
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            inherit_environment: false,
            folder: None,
            log: log.into(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Sets variables of its environment.
    #[must_use]
    pub fn envs<N: Into<String>, V: Into<String>>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Lets it see the environment of the test process, below what [`Command::env`] sets.
    #[must_use]
    pub fn inherit_environment(mut self) -> Self {
        self.inherit_environment = true;
        self
    }

    /// The folder it starts in; the test process's without this.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// The file that its output is appended to.
    pub fn log(&self) -> &std::path::Path {
        &self.log
    }
}

/// How a child ended. Neither is set where the supervisor itself is gone, and nobody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The exit code, if it exited by itself.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}

impl ExitStatus {
    pub(super) const UNKNOWN: Self = Self { code: None, signal: None };

    /// Whether it exited by itself with code 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}
