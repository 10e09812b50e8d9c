//! Tests that the program copies itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::PROGRAM;

fn install(program: &Path, directory: &Path) -> Output {
    Command::new(program).arg("install").arg(directory).output().unwrap()
}

#[test]
fn all_users_can_execute_a_copy_and_it_can_copy_itself() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = one.path().join("mcp-entra-shim");
    // The second copy replaces the first.
    for _ in 0..2 {
        let output = install(Path::new(PROGRAM), one.path());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(one.path()).unwrap().count(), 1, "something is left of the copying");
    }
    assert!(install(&copy, other.path()).status.success());
    assert!(fs::read(other.path().join("mcp-entra-shim")).unwrap() == fs::read(PROGRAM).unwrap());
}

#[test]
fn a_missing_directory_is_refused_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let output = install(Path::new(PROGRAM), &folder.path().join("missing"));
    assert_eq!(output.status.code(), Some(1));
    let refused = String::from_utf8(output.stderr).unwrap();
    assert!(refused.contains("mount an emptyDir there") && refused.contains("No such file"), "{refused}");
}
