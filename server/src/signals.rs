//! The stop signals of the program.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlBreak, CtrlC, ctrl_break, ctrl_c};

/// SIGTERM and SIGINT.
#[cfg(unix)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

#[cfg(unix)]
impl StopSignals {
    /// Takes over the signals, so that they no longer end the process. Signals before the call of `asked` are not
    /// missed.
    pub fn take() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first signal.
    pub async fn asked(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ctrl+C and Ctrl+Break.
#[cfg(windows)]
pub struct StopSignals {
    ctrl_c: CtrlC,
    ctrl_break: CtrlBreak,
}

#[cfg(windows)]
impl StopSignals {
    /// Takes over the signals, so that they no longer end the process. Signals before the call of `asked` are not
    /// missed.
    pub fn take() -> io::Result<Self> {
        Ok(Self { ctrl_c: ctrl_c()?, ctrl_break: ctrl_break()? })
    }

    /// Waits for the first signal.
    pub async fn asked(mut self) {
        tokio::select! {
            _ = self.ctrl_c.recv() => {}
            _ = self.ctrl_break.recv() => {}
        }
    }
}
