//! Comparison of the files in `crds/yaml` and `crds/schemas`, and of the page about the kinds, with the generated ones.
#![cfg(test)] // without this, clippy does not recognise helper functions of tests

use std::fs;

use documentation::{hold, repository};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use mcp_entra_crds::{custom_resource_definitions, definition_yaml};
use mcp_entra_policy::{CompiledPolicy, ServerConfiguration};

#[test]
fn the_generated_definitions_are_what_the_types_say() {
    let mut generated = Vec::new();
    for definition in custom_resource_definitions().unwrap() {
        let name = format!("{}.yaml", definition.metadata.name.as_deref().unwrap());
        hold(&format!("crds/yaml/{name}"), &definition_yaml(&definition).unwrap());
        generated.push(name);
    }
    let folder = fs::read_dir(repository("crds/yaml")).unwrap();
    let mut found: Vec<_> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    generated.sort();
    assert_eq!(found, generated, "crds/yaml holds generated files and nothing else");
}

#[test]
fn the_generated_schemas_are_what_the_types_say() {
    for (name, schema) in [
        ("server-configuration", schemars::schema_for!(ServerConfiguration)),
        ("compiled-policy", schemars::schema_for!(CompiledPolicy)),
    ] {
        hold(&format!("crds/schemas/{name}.schema.json"), &format!("{:#}\n", serde_json::to_value(schema).unwrap()));
    }
}

/// Collects the schemas of list items at any depth, with their paths.
fn items(schema: &JSONSchemaProps, path: &str, in_item: bool, found: &mut Vec<(String, bool)>) {
    if in_item {
        found.push((path.to_owned(), schema.default.is_some()));
    }
    for (name, member) in schema.properties.iter().flatten() {
        items(member, &format!("{path}.{name}"), in_item, found);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        items(item, &format!("{path}[]"), true, found);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(member)) = &schema.additional_properties {
        items(member, &format!("{path}{{}}"), in_item, found);
    }
}

#[test]
fn no_item_of_a_list_has_a_default_that_a_second_apply_would_take_away_again() {
    let mut found = Vec::new();
    for definition in custom_resource_definitions().unwrap() {
        for version in &definition.spec.versions {
            let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
            items(schema, &definition.spec.names.kind, false, &mut found);
        }
    }
    assert!(found.iter().any(|(path, _)| path == "McpRoleMapping.spec.grants[].graph"), "{found:?}");
    let filled: Vec<_> = found.iter().filter(|(_, has_default)| *has_default).collect();
    assert!(filled.is_empty(), "{filled:?}");
}

/// The type of a field in words: a list by its items, a map by its values.
fn type_of(schema: &JSONSchemaProps) -> String {
    if let Some(choices) = &schema.enum_ {
        let choices = choices.iter().filter_map(|choice| choice.0.as_str());
        return choices.map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ");
    }
    match (&schema.items, &schema.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(item)), _) => format!("list of {}", type_of(item)),
        (_, Some(JSONSchemaPropsOrBool::Schema(value))) => format!("map of {}", type_of(value)),
        _ if schema.x_kubernetes_int_or_string == Some(true) => "integer or string".to_owned(),
        _ => schema.type_.clone().unwrap_or_else(|| "any".to_owned()),
    }
}

/// Rows of the fields below a path. Fields of Kubernetes' own types are left to Kubernetes' documentation.
fn rows(schema: &JSONSchemaProps, path: &str, into: &mut String) {
    for (name, member) in schema.properties.iter().flatten() {
        let required = schema.required.iter().flatten().any(|required| required == name);
        let default = member.default.as_ref().map(|default| format!("`{}`", default.0));
        let default = if required { "required".to_owned() } else { default.unwrap_or_default() };
        let says = member.description.clone().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let path = format!("{path}.{name}");
        into.push_str(&format!("| `{path}` | {} | {default} | {says} |\n", type_of(member)));
        if !["affinity", "tolerations", "topologySpreadConstraints", "conditions"].contains(&name.as_str()) {
            rows(member, &path, into);
            if let Some(JSONSchemaPropsOrArray::Schema(item)) = &member.items {
                rows(item, &format!("{path}[]"), into);
            }
        }
    }
}

#[test]
fn the_generated_page_about_the_kinds_is_what_the_types_say() {
    let mut page = "# Kinds\n\nThis page is generated from the definitions in [crds/yaml](../../crds/yaml). \
         `kubectl explain` shows the same texts.\n"
        .to_owned();
    for definition in custom_resource_definitions().unwrap() {
        page += &format!("\n## {}\n", definition.spec.names.kind);
        let schema = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        page += "\n| Field | Type | Default | Says |\n|---|---|---|---|\n";
        rows(schema, "", &mut page);
    }
    hold("docs/reference/kinds.md", &page.replace("| `.", "| `"));
}
