//! Arguments of a tool or a prompt. Errors tell a model which argument is wrong and what is expected.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::offer::JsonObject;

/// An invalid argument, as a message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct InvalidArgument(String);

impl InvalidArgument {
    /// Returns an error with this message, which names the argument and the expected value.
    pub(super) fn new(words: &str) -> Self {
        Self(words.to_owned())
    }
}

/// A whole number in a range. Models also write 5 as `5.0`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Whole<const MINIMUM: u32, const MAXIMUM: u32>(pub(super) u32);

impl<'de, const MINIMUM: u32, const MAXIMUM: u32> Deserialize<'de> for Whole<MINIMUM, MAXIMUM> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let range = f64::from(MINIMUM)..=f64::from(MAXIMUM);
        match Value::deserialize(deserializer)?.as_f64() {
            Some(number) if number.fract() == 0.0 && range.contains(&number) => Ok(Self(number as u32)),
            _ => Err(D::Error::custom(format!("expected a whole number from {MINIMUM} to {MAXIMUM}"))),
        }
    }
}

/// The schema has no `format`, because strict clients refuse an unknown one.
impl<const MINIMUM: u32, const MAXIMUM: u32> JsonSchema for Whole<MINIMUM, MAXIMUM> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Whole{MINIMUM}To{MAXIMUM}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MINIMUM, "maximum": MAXIMUM })
    }
}

/// A text with a maximal number of characters.
#[derive(Clone, Debug)]
pub(super) struct Text<const MAXIMUM: usize>(pub(super) String);

impl<'de, const MAXIMUM: usize> Deserialize<'de> for Text<MAXIMUM> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.chars().count() <= MAXIMUM {
            true => Ok(Self(text)),
            false => Err(D::Error::custom(format!("expected at most {MAXIMUM} characters"))),
        }
    }
}

impl<const MAXIMUM: usize> JsonSchema for Text<MAXIMUM> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Text{MAXIMUM}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": MAXIMUM })
    }
}

/// Removes the argument `user` from the arguments. Tools do not see it; Graph is called for that user.
pub(super) fn take_user(arguments: &mut JsonObject) -> Result<Option<String>, InvalidArgument> {
    #[derive(Deserialize)]
    struct Named {
        user: Option<String>,
    }
    let named = arguments.remove_entry("user").into_iter().collect();
    read(named).map(|Named { user }| user)
}

/// Refuses an argument that the schema does not have. The error lists the known arguments and the missing required
/// ones.
///
/// The argument `user` of a user passes here; the client of Graph refuses it.
pub(super) fn check_names(arguments: &JsonObject, schema: &JsonObject) -> Result<(), InvalidArgument> {
    let known: Vec<&String> =
        schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name).collect();
    let Some(unknown) = arguments.keys().find(|name| *name != "user" && !known.contains(name)) else { return Ok(()) };
    let expected = match known.as_slice() {
        [] => "there are no fields".to_owned(),
        known => format!("expected {}", quoted(known, " or ")),
    };
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<&str> = required.filter(|name| !arguments.contains_key(*name)).collect();
    let missing = match missing.as_slice() {
        [] => String::new(),
        missing => format!("; give the required {}", quoted(missing, " and ")),
    };
    Err(InvalidArgument(format!("The argument {unknown}: unknown field `{unknown}`, {expected}{missing}.")))
}

/// Returns these names in backquotes.
pub(super) fn quoted(names: &[impl AsRef<str>], between: &str) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(between)
}

/// Parses the arguments of a call. An error names the first invalid one.
pub(super) fn read<T: DeserializeOwned>(arguments: JsonObject) -> Result<T, InvalidArgument> {
    serde_path_to_error::deserialize(Value::Object(arguments))
        .map_err(|error| InvalidArgument(format!("The argument {}: {}.", error.path(), error.inner())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_error_for_an_unknown_argument_lists_known_and_missing_arguments() {
        let users = "The argument users: unknown field `users`, ";
        for (properties, required, arguments, told) in [
            (json!({}), json!([]), json!({}), None),
            (json!({}), json!([]), json!({ "users": 1 }), Some("there are no fields.")),
            // Refused elsewhere.
            (json!({}), json!([]), json!({ "user": 1 }), None),
            (json!({ "top": {} }), json!([]), json!({ "top": 1 }), None),
            (json!({ "top": {} }), json!([]), json!({ "users": 1 }), Some("expected `top`.")),
            (json!({ "top": {} }), json!([]), json!({ "user": 1, "users": 1 }), Some("expected `top`.")),
            // Refused later, by the client of Graph.
            (json!({ "user": {} }), json!(["user"]), json!({}), None),
            (json!({ "user": {} }), json!(["user"]), json!({ "users": 1, "user": 1 }), Some("expected `user`.")),
            (
                json!({ "user": {} }),
                json!(["user"]),
                json!({ "users": 1 }),
                Some("expected `user`; give the required `user`."),
            ),
            (
                json!({ "top": {}, "user": {} }),
                json!(["user"]),
                json!({ "top": 1, "users": 1 }),
                Some("expected `top` or `user`; give the required `user`."),
            ),
        ] {
            let schema = json!({ "properties": properties, "required": required });
            let checked = check_names(arguments.as_object().unwrap(), schema.as_object().unwrap());
            let told = told.map(|told| format!("{users}{told}"));
            assert_eq!(checked.err().map(|error| error.to_string()), told, "{schema} {arguments}");
        }
    }
}
