//! The generated schema of audit lines in `crds/schemas` and the page about flags are what the code generates.

use documentation::{flags, hold};

#[test]
fn the_generated_schema_of_audit_lines_is_what_the_type_says() {
    let schema = serde_json::to_value(mcp_entra_server::audit::schema()).unwrap();
    hold("crds/schemas/audit-line.schema.json", &format!("{schema:#}\n"));
}

#[test]
fn the_generated_page_about_flags_is_what_the_help_says() {
    hold("docs/reference/mcp-entra-server.md", &flags(env!("CARGO_BIN_EXE_mcp-entra-server").as_ref()));
}
