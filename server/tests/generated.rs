//! The generated schema of audit lines in `crds/schemas` and the page about flags are what the code generates.
//! `REGENERATE=1 cargo test --workspace --test generated` writes them anew.

#[test]
fn the_committed_schema_of_audit_lines_is_what_the_type_says() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/schemas/audit-line.schema.json");
    let generated = format!("{:#}\n", serde_json::to_value(mcp_entra_server::audit::schema()).unwrap());
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(&file, &generated).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap_or_default() == generated,
        "crds/schemas/audit-line.schema.json is not what the code generates; run: REGENERATE=1 cargo test --workspace --test generated"
    );
}

#[test]
fn the_page_about_flags_is_what_the_help_says() {
    let page = documentation::flags(env!("CARGO_BIN_EXE_mcp-entra-server").as_ref());
    documentation::hold("docs/reference/mcp-entra-server.md", &page);
}
