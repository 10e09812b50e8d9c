//! JSON schemas of tools' arguments and answers, in MCP's dialect (2020-12).

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::offer::JsonObject;

/// Returns the schema of arguments.
pub(super) fn of_arguments<T: JsonSchema>() -> JsonObject {
    let mut schema = of::<T>(SchemaSettings::draft2020_12());
    // Some clients take a schema without this member for invalid.
    schema.entry("properties").or_insert_with(|| json!({}));
    schema
}

/// Returns the schema of an answer.
pub(super) fn of_output<T: JsonSchema>() -> JsonObject {
    of::<T>(SchemaSettings::draft2020_12().for_serialize())
}

/// Removes title and description of the root: they describe our types and do not help a model.
fn of<T: JsonSchema>(settings: SchemaSettings) -> JsonObject {
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("title");
    schema.remove("description");
    schema.as_object().cloned().unwrap_or_default()
}

/// Adds the required argument `user`.
pub(super) fn add_user(schema: &mut JsonObject, description: &str) {
    let user = json!({ "description": description, "type": ["string", "null"], "default": null });
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert("user".to_owned(), user);
    }
    if let Value::Array(required) = schema.entry("required").or_insert_with(|| json!([])) {
        required.push(json!("user"));
    }
}
