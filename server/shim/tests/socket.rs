//! Tests of the socket: the processes that may connect to it, and the files that it replaces.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::harness::{Shim, rest, serve};

#[test]
fn only_owner_and_group_may_connect() {
    let shim = Shim::of("echo ready");
    let found = fs::metadata(shim.socket()).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    let left = fs::read_dir(shim.folder.path()).unwrap().count();
    assert_eq!(left, 1, "something is left of how the socket was made");
}

#[test]
fn the_sockets_of_an_earlier_run_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["backend.sock", "backend.new"] {
        drop(UnixListener::bind(folder.path().join(name)).unwrap());
    }
    let shim = Shim::start_in(folder, 1, &["echo", "ready"]);
    assert_eq!(rest(&shim.connect()), "ready\n");
}

#[test]
fn a_file_that_is_not_a_socket_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backend.sock");
    fs::write(&path, "kept").unwrap();
    assert!(refusal(&path).contains("is not a socket"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
}

#[test]
fn a_socket_that_cannot_be_made_is_refused_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let refused = refusal(&folder.path().join("missing/backend.sock"));
    assert!(refused.contains("fsGroup") && refused.contains("No such file"), "{refused}");
    let refused = refusal(&folder.path().join("x".repeat(120)));
    assert!(refused.contains("shorter than 104 bytes"), "{refused}");
}

/// Returns the error of a shim that cannot listen there.
fn refusal(socket: &Path) -> String {
    let output = serve(socket, 1, &["cat"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}
