//! The generated files in `crds/yaml` and `crds/schemas` are what the code generates.
//! `REGENERATE=1 cargo test --workspace --test generated` writes them anew.
#![cfg(test)] // clippy does not see otherwise that the functions tests share are of tests too

use std::{fs, path::PathBuf};

use mcp_entra_crds::{custom_resource_definitions, definition_yaml};
use mcp_entra_policy::{CompiledPolicy, ServerConfiguration};

fn hold(path: &str, generated: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if std::env::var_os("REGENERATE").is_some() {
        fs::write(&file, generated).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == generated,
        "crds/{path} is not what the code generates; run: REGENERATE=1 cargo test --workspace --test generated"
    );
}

#[test]
fn the_committed_definitions_are_what_the_types_say() {
    let mut generated = Vec::new();
    for definition in custom_resource_definitions().unwrap() {
        let name = format!("{}.yaml", definition.metadata.name.as_deref().unwrap());
        hold(&format!("yaml/{name}"), &definition_yaml(&definition).unwrap());
        generated.push(name);
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../yaml");
    let mut found: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    generated.sort();
    assert_eq!(found, generated, "crds/yaml holds generated files and nothing else");
}

#[test]
fn the_committed_schemas_are_what_the_types_say() {
    for (name, schema) in [
        ("server-configuration", schemars::schema_for!(ServerConfiguration)),
        ("compiled-policy", schemars::schema_for!(CompiledPolicy)),
    ] {
        hold(&format!("schemas/{name}.schema.json"), &format!("{:#}\n", serde_json::to_value(schema).unwrap()));
    }
}
