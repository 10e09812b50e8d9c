//! Comparison of `values.yaml` and `README.md` of each chart with its `values.schema.json`, which is the only
//! documentation of values.
#![cfg(test)] // without it, clippy treats functions that tests share as non-test code

use std::fs;

use documentation::{hold, repository};
use serde_yaml::{Mapping, Value};

const CHARTS: [&str; 2] = ["charts/mcp-entra", "charts/mcp-entra-crds"];

/// Value of a chart, or group of values.
struct Entry {
    /// Names on the path to the value.
    path: Vec<String>,
    description: String,
    kind: String,
    /// None for a group.
    default: Option<Value>,
}

fn read_schema(chart: &str) -> Value {
    // Read as YAML, which keeps the order of members.
    serde_yaml::from_str(&fs::read_to_string(repository(&format!("{chart}/values.schema.json"))).unwrap()).unwrap()
}

/// Collects all values that a person sets, in the schema's order. Values of Helm itself have no description.
fn entries(root: &Value, schema: &Value, path: &[String], into: &mut Vec<Entry>) {
    for (name, property) in schema["properties"].as_mapping().unwrap() {
        let property = resolve(root, property);
        let Some(description) = property.get("description").and_then(Value::as_str) else { continue };
        let path = [path, &[name.as_str().unwrap().to_owned()]].concat();
        let default = property.get("default").cloned();
        let is_group = default.is_none() && property.get("properties").is_some();
        if default.is_none() && !is_group {
            continue;
        }
        into.push(Entry { path: path.clone(), description: description.to_owned(), kind: kind(&property), default });
        if is_group {
            entries(root, &property, &path, into);
        }
    }
}

/// Returns the property with its `$ref` resolved.
fn resolve(root: &Value, property: &Value) -> Value {
    let Some(reference) = property.get("$ref").and_then(Value::as_str) else { return property.clone() };
    let mut resolved = root["definitions"][reference.rsplit('/').next().unwrap()].clone();
    merge(&mut resolved, property);
    resolved
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Mapping(into), Value::Mapping(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn kind(property: &Value) -> String {
    if let Some(choices) = property.get("enum").and_then(Value::as_sequence) {
        return choices.iter().map(|choice| choice.as_str().unwrap()).collect::<Vec<_>>().join(", ");
    }
    let kind = property["type"].as_str().unwrap();
    match property.get("items").and_then(|items| items.get("type")).and_then(Value::as_str) {
        Some(item) => format!("{kind} of {item}s"),
        None => kind.to_owned(),
    }
}

fn values_yaml(entries: &[Entry]) -> String {
    let mut text = "# Generated from values.schema.json.\n".to_owned();
    for entry in entries {
        let indent = "  ".repeat(entry.path.len() - 1);
        for line in wrapped(&entry.description, 118 - indent.len()) {
            text += &format!("{indent}# {line}\n");
        }
        let name = entry.path.last().unwrap();
        match &entry.default {
            None => text += &format!("{indent}{name}:\n"),
            Some(default) => {
                let member = Value::Mapping(Mapping::from_iter([(name.clone().into(), default.clone())]));
                for line in serde_yaml::to_string(&member).unwrap().lines() {
                    text += &format!("{indent}{line}\n");
                }
            }
        }
    }
    text
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().unwrap();
        if last.len() + word.len() >= width {
            lines.push(word.to_owned());
        } else {
            *last += &format!("{}{word}", if last.is_empty() { "" } else { " " });
        }
    }
    lines
}

fn readme(chart: &str, entries: &[Entry]) -> String {
    let about: Value =
        serde_yaml::from_str(&fs::read_to_string(repository(&format!("{chart}/Chart.yaml"))).unwrap()).unwrap();
    let (name, description) = (about["name"].as_str().unwrap(), about["description"].as_str().unwrap());
    let mut text = format!(
        "# {name}\n\n{description}. The [quickstart](../../docs/quickstart.md#on-a-real-cluster) shows how to install \
         it. This page is generated from `values.schema.json`.\n\n| Value | Type | Default | Description |\n|---|---|---|---|\n"
    );
    for Entry { path, description, kind, default } in entries {
        let path = path.join(".");
        let default = default.as_ref().map(|default| format!("`{}`", serde_json::to_string(default).unwrap()));
        let default = default.unwrap_or_default();
        text += &format!("| `{path}` | {kind} | {default} | {} |\n", description.replace('|', "\\|"));
    }
    text
}

#[test]
fn generated_values_and_their_tables_are_what_the_schemas_say() {
    for chart in CHARTS {
        let schema = read_schema(chart);
        let mut all = Vec::new();
        entries(&schema, &schema, &[], &mut all);
        hold(&format!("{chart}/values.yaml"), &values_yaml(&all));
        hold(&format!("{chart}/README.md"), &readme(chart, &all));
    }
}

/// Collects the paths of the values that are not empty by default. The chart does not render as meant without one of them.
fn with_defaults(values: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    match values {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                with_defaults(value, &path, found);
            }
        }
        serde_json::Value::Array(items) if items.is_empty() => {}
        serde_json::Value::String(text) if text.is_empty() => {}
        // A key with a slash is one of a map that people replace as a whole.
        _ if path.contains('/') => {}
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn the_generated_template_names_each_value_with_a_default() {
    let values = fs::read_to_string(repository("charts/mcp-entra/values.yaml")).unwrap();
    let mut paths = Vec::new();
    with_defaults(&serde_yaml::from_str(&values).unwrap(), "", &mut paths);
    // People remove limits and labels with null.
    paths.retain(|path| !path.starts_with("crds.") && !path.starts_with("resources.") && !path.contains(".labels."));
    let paths = paths.join(" ");
    let template = format!("{{{{- define \"mcp-entra.valuesWithDefaults\" -}}}}\n{paths}\n{{{{- end }}}}\n");
    hold("charts/mcp-entra/templates/values/_with-defaults.tpl", &template);
}
