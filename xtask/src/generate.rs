//! `cargo xtask generate`: writes or compares the files that code generates.
//!
//! The generators are tests whose names begin with `generated` or `the_generated`, in the crates whose code they read. Inside
//! xtask, they would make each chore compile the operator and the server first.

use crate::{cargo, execute};

/// Makes the tests of generated files write them, or compare them.
///
/// # Errors
/// If a test does not build, or a file differs.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let mut tests = cargo();
    tests.args(["test", "--locked", "--workspace", "--no-fail-fast", "--quiet", "--lib", "--test", "generated"]);
    tests.args(["--", "generated"]);
    if check {
        tests.env_remove("REGENERATE");
    } else {
        tests.env("REGENERATE", "1");
    }
    execute(&mut tests)
}
