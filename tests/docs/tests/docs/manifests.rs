//! Tests of the documentation's YAML: manifests, fragments of McpServers, and values of the chart.

use documentation::{Block, MCP_SERVER_FRAGMENT, manifests, pages, repository};
use mcp_entra_crds::{ClusterMcpRoleMapping, McpRoleMapping, McpServer};
use serde_json::Value;

fn blocks() -> Vec<Block> {
    pages().iter().flat_map(|page| page.blocks()).filter(|block| block.language == "yaml").collect()
}

/// Parses a document by its kind, and checks that the kind has all its members.
fn read(document: &Value) -> Result<(), String> {
    fn typed<K: serde::de::DeserializeOwned + serde::Serialize>(document: &Value) -> Result<(), String> {
        let read: K = serde_json::from_value(document.clone()).map_err(|error| error.to_string())?;
        let kept = serde_json::to_value(read).unwrap();
        unknown(document, &kept, "").map_or(Ok(()), |path| Err(format!("{path} does not exist")))
    }
    match document["kind"].as_str().unwrap_or_default() {
        "McpServer" => typed::<McpServer>(document),
        "McpRoleMapping" => typed::<McpRoleMapping>(document),
        "ClusterMcpRoleMapping" => typed::<ClusterMcpRoleMapping>(document),
        kind => Err(format!("the kind {kind} does not exist")),
    }
}

/// Returns the first member of the document that the kind did not keep.
fn unknown(document: &Value, kept: &Value, path: &str) -> Option<String> {
    match (document, kept) {
        (Value::Object(members), Value::Object(kept)) => members.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match kept.get(name) {
                Some(kept) => unknown(value, kept, &path),
                // A default may be absent.
                None if value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty) => None,
                None => Some(path),
            }
        }),
        (Value::Array(items), Value::Array(kept)) => {
            items.iter().zip(kept).find_map(|(item, kept)| unknown(item, kept, &format!("{path}[]")))
        }
        _ => None,
    }
}

fn example() -> Value {
    let text = std::fs::read_to_string(repository("crds/examples/2-server.yaml")).unwrap();
    serde_yaml::from_str(&text).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[test]
fn every_manifest_has_only_members_of_its_kind() {
    let mut seen = 0;
    for block in blocks() {
        for document in manifests(&block) {
            let document = serde_yaml::from_str(document).unwrap_or_else(|error| panic!("{}: {error}", block.place));
            read(&document).unwrap_or_else(|error| panic!("{}: {error}", block.place));
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} manifests were seen");
}

#[test]
fn every_fragment_of_an_mcp_server_fits_into_the_example() {
    let mut seen = 0;
    for block in blocks().into_iter().filter(|block| block.text.starts_with(MCP_SERVER_FRAGMENT)) {
        let fragment = serde_yaml::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.place));
        let mut document = example();
        merge(&mut document, fragment);
        read(&document).unwrap_or_else(|error| panic!("{}: {error}", block.place));
        seen += 1;
    }
    assert!(seen >= 3, "only {seen} fragments were seen");
}

#[test]
fn every_block_of_values_is_valid_for_the_chart() {
    let schema = std::fs::read_to_string(repository("charts/mcp-entra/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let names = schema["properties"].as_object().unwrap();
    let defaults = std::fs::read_to_string(repository("charts/mcp-entra/values.yaml")).unwrap();
    let mut base: Value = serde_yaml::from_str(&defaults).unwrap();
    // The only value that a user must set.
    base["image"]["registry"] = "registry.contoso.com/platform".into();
    let mut seen = 0;
    for block in blocks() {
        let Ok(Value::Object(values)) = serde_yaml::from_str::<Value>(&block.text) else { continue };
        // A misspelt name occurs beside existing ones.
        if !values.keys().any(|name| names.contains_key(name)) {
            continue;
        }
        let unknown: Vec<_> = values.keys().filter(|name| !names.contains_key(*name)).collect();
        assert!(unknown.is_empty(), "{}: the chart has no value {unknown:?}", block.place);
        let mut all = base.clone();
        merge(&mut all, Value::Object(values));
        let errors: Vec<_> =
            validator.iter_errors(&all).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", block.place);
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} blocks of values were seen");
}
