//! Tests that the project's own programs are built from the current source.

use testbed::programs::program;

#[test]
fn the_workspaces_programs_are_found_by_name() {
    for name in ["mcp-entra-operator", "mcp-entra-server", "testbed-supervisor"] {
        assert!(program(name).unwrap().is_file(), "{name}");
    }
    let error = program("nobody").unwrap_err().to_string();
    assert!(error.contains("no program nobody") && error.contains("mcp-entra-server"), "{error}");
}
