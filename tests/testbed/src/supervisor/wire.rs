//! Messages between a test process and its supervisor: JSON, one per line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Message of the test process, on the supervisor's standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Starts a child; answered by `Spawned` or `Refused` with the same id.
    Spawn { id: u64, command: Command },
    /// Sends a signal to the child's process group. It has no effect after the child's end.
    Signal { id: u64, signal: i32 },
}

/// Message of the supervisor, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// First line: the state folder exists.
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

/// Program to run, in its own process group. Its standard input is empty, and its output is appended to a log file.
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
    /// Returns a program with no arguments and an empty environment, whose output and errors are appended to the file
    /// `log`.
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

    /// Passes the environment of the test process to it. Variables of [`Command::env`] take precedence.
    #[must_use]
    pub fn inherit_environment(mut self) -> Self {
        self.inherit_environment = true;
        self
    }

    /// Sets the folder it starts in. The default is the test process's.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Path of the file that its output is appended to.
    pub fn log(&self) -> &std::path::Path {
        &self.log
    }
}

/// End of a child. Both fields are `None` if the supervisor itself is gone, so that the end is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code, if it exited by itself.
    pub code: Option<i32>,
    /// Number of the signal that ended it.
    pub signal: Option<i32>,
}

impl ExitStatus {
    pub(super) const UNKNOWN: Self = Self { code: None, signal: None };

    /// Returns whether it exited by itself with code 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}
