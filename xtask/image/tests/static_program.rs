//! Tests that only programs for an empty root are accepted.

use image::{Program, StaticProgram};
use oci_spec::image::Arch;

use crate::{example, rustc};

fn refusal(program: Vec<u8>) -> String {
    format!("{:#}", StaticProgram::new(program).unwrap_err())
}

#[test]
fn a_static_program_is_accepted_with_its_architecture() {
    let own = if cfg!(target_arch = "aarch64") { Arch::ARM64 } else { Arch::Amd64 };
    assert_eq!(*example(Program::Server).root.program.architecture(), own);
}

#[test]
fn a_program_that_needs_a_dynamic_loader_is_refused() {
    let refusal = refusal(rustc(&["-Ctarget-feature=-crt-static"], "fn main() {}"));
    assert!(refusal.contains("needs a dynamic loader") && refusal.contains("+crt-static"), "{refusal}");
}

#[test]
fn a_program_that_only_needs_shared_libraries_is_refused() {
    let refusal = refusal(rustc(&["--crate-type=cdylib"], "#[unsafe(no_mangle)] pub extern \"C\" fn exported() {}"));
    assert!(refusal.contains("needs shared libraries"), "{refusal}");
}

#[test]
fn a_file_that_is_not_a_program_is_refused() {
    let refusal = refusal(b"#!/bin/sh\nexec true\n".to_vec());
    assert!(refusal.contains("read the program's ELF header"), "{refusal}");
}
