//! Misbehaviour of a process, which its parent must survive or prevent.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::scripted::call::Call;
use crate::scripted::outlet::Output;

/// Seconds after which a forgotten process ends.
const FORGOTTEN: &str = "300";

/// Executes actions that only a separate process may execute.
pub(super) async fn run(call: &Call, name: &str) {
    let code = i32::try_from(call.count("code", 1)).unwrap_or(1);
    match name {
        "exit" => {
            call.outlet.send(Output::Exit(code)).await;
        }
        "exit_midway" => {
            let half = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"content":["#, call.id);
            call.outlet.send(Output::Bytes(half.into_bytes())).await;
            call.outlet.send(Output::Exit(code)).await;
        }
        "fork" => fork(call).await,
        "ignore_sigterm" => ignore_sigterm(call).await,
        _ => fill_stderr(call).await,
    }
}

/// Starts a process without waiting for its end. It inherits stdout and stderr.
async fn fork(call: &Call) {
    let mut command = Command::new("sleep");
    command.arg(FORGOTTEN).stdin(Stdio::null());
    if call.argument("own_group").as_bool() == Some(true) {
        command.process_group(0);
    }
    match command.spawn() {
        Ok(child) => call.answer_text(child.id().to_string()).await,
        Err(error) => call.fail(error.to_string()).await,
    }
}

async fn ignore_sigterm(call: &Call) {
    // After its installation, the handler stays until the process ends.
    if let Err(error) = signal(SignalKind::terminate()) {
        return call.fail(error.to_string()).await;
    }
    call.backend.linger();
    call.answer_text("ignored").await;
}

/// Writes lines to stderr, which blocks if it is not read.
async fn fill_stderr(call: &Call) {
    let lines = call.count("bytes", 8 << 20) / 4096;
    let written = tokio::task::spawn_blocking(move || {
        let mut stderr = std::io::stderr().lock();
        (0..lines).try_for_each(|line| writeln!(stderr, "{line:04095}"))
    });
    // A closed stderr does not matter to the caller.
    written.await.ok();
    call.answer_text("filled").await;
}

/// Accepts and drops connections until the backend ends.
pub(super) async fn listen_everywhere(call: &Call) {
    let port = u16::try_from(call.count("port", 0)).unwrap_or(0);
    let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    let (listener, port) = match bound.and_then(|bound| bound.local_addr().map(|address| (bound, address.port()))) {
        Ok(bound) => bound,
        Err(error) => return call.fail(error.to_string()).await,
    };
    let end = call.backend.end.clone();
    tokio::spawn(end.run_until_cancelled_owned(async move { while listener.accept().await.is_ok() {} }));
    call.answer_text(port.to_string()).await;
}
