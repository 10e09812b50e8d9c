//! Tests that standard error of a process is logged, and never blocks the process.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Shim, await_exit, line, serve};

#[test]
fn each_line_is_logged_with_the_process_that_wrote_it() {
    let shim = Shim::of("echo $$; echo one >&2; printf '\\033[1mtwo\\n' >&2; printf three >&2");
    let pid = line(&shim.connect());
    for text in ["one", "\\u{1b}[1mtwo", "three"] {
        assert_eq!(shim.await_line("[pid "), format!("[pid {pid}] {text}"));
    }
}

#[test]
fn standard_error_is_drained_although_nobody_reads_the_output() {
    // More than the size of a pipe, and less than the limit of the log.
    let shim = Shim::of(
        "head -c 4000000 /dev/zero & head -c 150000 /dev/zero | tr '\\0' x | fold -w 1000 >&2; echo >&2; echo end >&2; wait",
    );
    let _connection = shim.connect();
    shim.await_line("] end");
}

#[test]
fn a_line_that_is_too_long_is_cut_and_the_next_one_whole() {
    let shim = Shim::of("head -c 20000 /dev/zero | tr '\\0' x >&2; echo >&2; echo next >&2");
    let _connection = shim.connect();
    let cut = shim.await_line("xxx");
    // Size that a pipe writes atomically.
    assert!(cut.len() < 4096, "{}", cut.len());
    assert!(cut.ends_with("x … (cut)"), "{cut}");
    assert_eq!(shim.await_line("] ").split_once("] ").unwrap().1, "next");
}

#[test]
fn a_process_continues_with_an_unread_log_which_later_counts_the_missing_lines() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("backend.sock");
    let (mut log, theirs) = std::io::pipe().unwrap();
    let script = "seq 1000000 >&2; echo done; cat";
    // The command has the pipe's other end, too, and is dropped after this statement.
    let mut shim = serve(&socket, 1, &["sh", "-c", script]).stderr(Stdio::from(theirs)).spawn().unwrap();
    // This is the first output before the socket exists.
    let mut begin = [0; 9];
    log.read_exact(&mut begin).unwrap();
    let connection = UnixStream::connect(&socket).unwrap();
    assert_eq!(line(&connection), "done");

    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).map(|_| text).unwrap()
    });
    drop(connection);
    kill(Pid::from_raw(shim.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(await_exit(&mut shim).success());
    let text = reader.join().unwrap();
    let note = text.lines().find(|line| line.contains("log lines were dropped here")).unwrap();
    let dropped: usize = note.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(dropped > 100_000 && dropped < 1_000_000, "{note}");
    assert!(text.lines().any(|line| line.ends_with("] 1")), "the first lines fit");
}
