//! JSON from outside, read in the only way that leaves no room for two readings: duplicate members and deep nesting
//! are refused.
//!
//! RFC 8259 lets every parser pick its own among duplicate members, so that what was checked might not be what is
//! used later. serde_json silently keeps the last.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deeply arrays and objects may be nested.
pub const MAXIMUM_DEPTH: u8 = 32;

/// Why a document is refused, and where.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StrictJsonError(#[from] serde_json::Error);

/// The one value that this document holds. Refuses duplicate members, nesting deeper than [`MAXIMUM_DEPTH`] and
/// anything but white space after the value.
pub fn from_slice(document: &[u8]) -> Result<Value, StrictJsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let value = Strict { depth_left: MAXIMUM_DEPTH }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict {
    depth_left: u8,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left }),
            None => Err(E::custom(format_args!("nested more than {MAXIMUM_DEPTH} levels deep"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that JSON cannot hold"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("member {name:?} occurs twice")));
            }
            let value = members.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_without_duplicates_is_read_as_serde_json_reads_it() {
        let document = br#" {"a":[1,-2,3.5,"x\n\u00e9",true,null,{}],"b":{"a":18446744073709551615}} "#;
        let expected: Value = serde_json::from_slice(document).unwrap();
        assert_eq!(from_slice(document).unwrap(), expected);
    }

    #[test]
    fn a_duplicate_member_is_refused_at_every_level_however_it_is_escaped() {
        for document in [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"b":2,"a":3}}]"#, r#"{"a":1,"\u0061":2}"#] {
            let error = from_slice(document.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(r#"member "a" occurs twice"#), "{document}: {error}");
        }
    }

    #[test]
    fn equal_names_in_different_objects_are_no_duplicates() {
        from_slice(br#"[{"a":1},{"a":2},{"b":{"a":3}}]"#).unwrap();
    }

    #[test]
    fn nesting_is_accepted_up_to_the_limit_and_refused_beyond() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        from_slice(nested(usize::from(MAXIMUM_DEPTH)).as_bytes()).unwrap();
        let error = from_slice(nested(usize::from(MAXIMUM_DEPTH) + 1).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("nested more than 32 levels"), "{error}");
    }

    #[test]
    fn anything_after_the_value_is_refused() {
        from_slice(b"{} {}").unwrap_err();
        from_slice(b"{}x").unwrap_err();
    }
}
