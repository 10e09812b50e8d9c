//! The arguments of a tool, read so that a model learns which of them is wrong and what it takes.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::offer::JsonObject;

/// An argument that is not what the tool takes, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct InvalidArgument(String);

/// A whole number in a range. Models write 5 as `5.0`, too.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Whole<const MINIMUM: u32, const MAXIMUM: u32>(pub(super) u32);

impl<'de, const MINIMUM: u32, const MAXIMUM: u32> Deserialize<'de> for Whole<MINIMUM, MAXIMUM> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let range = f64::from(MINIMUM)..=f64::from(MAXIMUM);
        match Value::deserialize(deserializer)?.as_f64() {
            Some(number) if number.fract() == 0.0 && range.contains(&number) => Ok(Self(number as u32)),
            _ => Err(D::Error::custom(format!("it takes a whole number from {MINIMUM} to {MAXIMUM}"))),
        }
    }
}

/// Has no `format`: strict clients refuse a schema with one that they do not know.
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

/// Takes the argument `user` out of the arguments of a call. Tools do not see it: Graph is asked about that user.
pub(super) fn take_user(arguments: &mut JsonObject) -> Result<Option<String>, InvalidArgument> {
    #[derive(Deserialize)]
    struct Named {
        user: Option<String>,
    }
    let named = arguments.remove_entry("user").into_iter().collect();
    read(named).map(|Named { user }| user)
}

/// The arguments of a call; an error names the first of them that is wrong.
pub(super) fn read<T: DeserializeOwned>(arguments: JsonObject) -> Result<T, InvalidArgument> {
    serde_path_to_error::deserialize(Value::Object(arguments))
        .map_err(|error| InvalidArgument(format!("The argument {}: {}.", error.path(), error.inner())))
}
