//! The generated page about the operator's flags is what `--help` prints.

use documentation::{flags, hold};

#[test]
fn the_generated_page_about_flags_is_what_the_help_says() {
    hold("docs/reference/mcp-entra-operator.md", &flags(env!("CARGO_BIN_EXE_mcp-entra-operator").as_ref()));
}
