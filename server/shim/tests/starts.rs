//! Tests that processes start with the shim's environment, up to their maximum, and that the log has the reason of a
//! failed start.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Shim, line, rest, serve};

#[test]
fn a_process_has_exactly_the_environment_of_the_shim() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("backend.sock");
    let mut serve = serve(&socket, 1, &["/usr/bin/env"]);
    let process = serve.env_clear().envs([("API_KEY", "x"), ("HOME", "/tmp")]).spawn().unwrap();
    let shim = Shim::adopt(process, folder);
    assert_eq!(rest(&shim.connect()), "API_KEY=x\nHOME=/tmp\n");
}

#[test]
fn a_process_has_neither_the_connection_nor_the_socket() {
    let shim = Shim::of("readlink /proc/self/fd/0; ls -l /proc/self/fd | grep -c socket:");
    let connection = shim.connect();
    assert!(line(&connection).starts_with("pipe:"));
    assert_eq!(rest(&connection), "0\n");
}

#[test]
fn a_connection_beyond_the_maximum_is_closed_at_once_and_one_after_an_end_is_not() {
    let shim = Shim::start(2, &["sh", "-c", "echo ready; exec cat"]);
    let (one, other) = (shim.connect(), shim.connect());
    assert_eq!((line(&one), line(&other)), ("ready".to_owned(), "ready".to_owned()));
    assert_eq!(rest(&shim.connect()), "");
    shim.await_line("2 processes run, and --max-processes allows no more");
    drop(one);
    // There is room after the end of the process, which sends no event.
    while line(&shim.connect()) != "ready" {}
    (&other).write_all(b"still\n").unwrap();
    assert_eq!(line(&other), "still");
}

/// Returns the log about a command that does not start. The shim must continue.
fn refusal(command: &str) -> String {
    let shim = Shim::start(64, &[command, "secret"]);
    for _ in 0..2 {
        assert_eq!(rest(&shim.connect()), "");
    }
    let refusal = shim.await_line("cannot start");
    assert_eq!(shim.await_line("cannot start"), refusal);
    refusal
}

#[test]
fn a_missing_command_is_named_with_the_next_step() {
    let refusal = refusal("/no/such/program");
    assert!(refusal.contains("cannot start /no/such/program: No such file or directory"), "{refusal}");
    assert!(refusal.contains("spec.backend.command"), "{refusal}");
    assert!(!refusal.contains("secret"), "{refusal}");
}

#[test]
fn a_command_that_cannot_be_executed_is_named_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    for (mode, content, reason, step) in [
        (0o644, "#!/bin/sh\n", "Permission denied", "spec.backend.runAsUser"),
        (0o755, "no program\n", "Exec format error", "this node's architecture"),
        (0o755, "#!/no/such/interpreter\n", "No such file", "the interpreter"),
    ] {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let refusal = refusal(path.to_str().unwrap());
        assert!(refusal.contains(reason) && refusal.contains(step), "{refusal}");
    }
}
