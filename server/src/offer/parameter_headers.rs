//! Headers that repeat a tool's arguments, if its schema requires them (`x-mcp-header`).

use serde_json::Value;

use super::JsonObject;

const PREFIX: &str = "mcp-param-";

/// Returns the required headers of a schema in lower case, each with the text of its argument, or none if that is
/// absent or null.
pub fn parameter_headers(schema: &JsonObject, arguments: &JsonObject) -> Vec<(String, Option<String>)> {
    let header = |(path, header): (Vec<&str>, &str)| {
        (format!("{PREFIX}{}", header.to_ascii_lowercase()), value_at(arguments, &path))
    };
    annotated(schema).into_iter().map(header).collect()
}

/// Returns the properties with headers: the path to each, and the suffix of the header's name.
fn annotated(schema: &JsonObject) -> Vec<(Vec<&str>, &str)> {
    fn collect<'a>(schema: Option<&'a Value>, path: &[&'a str], found: &mut Vec<(Vec<&'a str>, &'a str)>) {
        let Some(Value::Object(properties)) = schema else { return };
        for (name, property) in properties {
            let path = [path, &[name.as_str()]].concat();
            collect(property.get("properties"), &path, found);
            if let Some(header) = property.get("x-mcp-header").and_then(Value::as_str)
                && !header.is_empty()
            {
                found.push((path, header));
            }
        }
    }
    let mut found = Vec::new();
    collect(schema.get("properties"), &[], &mut found);
    found
}

/// Returns the text of a primitive argument, or none if it is absent or null.
fn value_at(arguments: &JsonObject, path: &[&str]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    match rest.iter().try_fold(arguments.get(*first)?, |value, name| value.get(name))? {
        Value::String(text) => Some(text.clone()),
        value @ (Value::Bool(_) | Value::Number(_)) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
