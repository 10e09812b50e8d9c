//! The signals that ask a process to stop, and the one that tells it of ended children.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes the signals, which no longer end the process by themselves. Those that come before `asked` are not missed.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first of them.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGCHLD: a child has ended, or several have.
pub(crate) struct ChildSignals(Signal);

impl ChildSignals {
    /// Takes the signals. Those that come before `next` are not missed.
    pub(crate) fn take() -> io::Result<Self> {
        signal(SignalKind::child()).map(Self)
    }

    /// Waits for the next of them.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}
