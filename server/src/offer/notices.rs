//! Notices of a running call: its progress, and messages for the client's log.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

/// Maximum number of notices that wait to be sent. More are dropped: the next one is more recent.
const WAITING: usize = 16;

/// Notices of one call. Clients that did not request them get none.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    sender: Option<mpsc::Sender<Notice>>,
    wanted: Wanted,
}

/// The notices that a client requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// True if it sent a token for progress.
    pub progress: bool,
    /// The least severe log messages that it wants; absent for none.
    pub log: Option<LogLevel>,
}

/// A notice of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Progress of the call.
    Progress(Progress),
    /// A message for the client's log.
    Log(LogMessage),
}

/// Progress of a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Finished steps; absent for one more than before.
    pub done: Option<f64>,
    /// Number of all steps, if it is known.
    pub total: Option<f64>,
    /// Message for a person.
    pub message: Option<String>,
}

/// A message for the client's log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogMessage {
    /// Its severity.
    pub level: LogLevel,
    /// The content: a text, or an object.
    pub data: Value,
}

/// Severity of a log message (RFC 5424 section 6.2.1), the least severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Details for developers.
    Debug,
    /// An event in the normal course.
    Info,
    /// A normal event that deserves attention.
    Notice,
    /// A condition that may become an error.
    Warning,
    /// A failure of one operation.
    Error,
    /// A failure of a whole part.
    Critical,
    /// A condition that requires action at once.
    Alert,
    /// An unusable system.
    Emergency,
}

impl Notices {
    /// Requested notices, and their receiver. They end when the call does.
    pub fn heard(wanted: Wanted) -> (Self, mpsc::Receiver<Notice>) {
        let (sender, heard) = mpsc::channel(WAITING);
        (Self { sender: Some(sender), wanted }, heard)
    }

    /// True if the client receives them.
    pub fn is_heard(&self) -> bool {
        self.sender.is_some()
    }

    /// Reports the current step as text, without waiting for its delivery.
    pub fn progress(&self, message: impl Into<String>) {
        self.report(Progress { message: Some(message.into()), ..Progress::default() });
    }

    /// Reports the progress of the call.
    pub fn report(&self, progress: Progress) {
        if self.wanted.progress {
            self.send(Notice::Progress(progress));
        }
    }

    /// Sends a message to the client's log.
    pub fn log(&self, level: LogLevel, data: Value) {
        if self.wanted.log.is_some_and(|least| level >= least) {
            self.send(Notice::Log(LogMessage { level, data }));
        }
    }

    fn send(&self, notice: Notice) {
        if let Some(sender) = &self.sender {
            _ = sender.try_send(notice);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_gets_only_the_requested_notices() {
        for (progress, log, expected) in
            [(false, None, 0), (true, None, 1), (false, Some(LogLevel::Warning), 1), (true, Some(LogLevel::Debug), 3)]
        {
            let (notices, mut heard) = Notices::heard(Wanted { progress, log });
            notices.progress("half");
            notices.log(LogLevel::Info, json!("so"));
            notices.log(LogLevel::Error, json!("no"));
            drop(notices);
            let count = std::iter::from_fn(|| heard.try_recv().ok()).count();
            assert_eq!(count, expected, "{progress} {log:?}");
        }
    }
}
