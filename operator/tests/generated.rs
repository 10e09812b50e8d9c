//! The page about the operator's flags is what `--help` prints.
//! `REGENERATE=1 cargo test --workspace --test generated` writes it anew.

#[test]
fn the_page_about_flags_is_what_the_help_says() {
    let page = documentation::flags(env!("CARGO_BIN_EXE_mcp-entra-operator").as_ref());
    documentation::hold("docs/reference/mcp-entra-operator.md", &page);
}
