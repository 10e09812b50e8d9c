//! Signals that request a stop, and the signal of ended children.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Receives the signals, which no longer end the process by themselves. Signals before the call of `asked` are not
    /// lost.
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

/// SIGCHLD: one or several children have ended.
pub(crate) struct ChildSignals(Signal);

impl ChildSignals {
    /// Receives the signals. Signals before the call of `next` are not lost.
    pub(crate) fn take() -> io::Result<Self> {
        signal(SignalKind::child()).map(Self)
    }

    /// Waits for the next of them.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}
