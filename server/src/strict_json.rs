//! Strict and bounded parsing of JSON from outside. It refuses duplicate members, deep nesting and too many values.
//!
//! RFC 8259 lets every parser choose among duplicate members, so a checked value could differ from the one used
//! later. serde_json silently keeps the last.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Greatest depth of nested arrays and objects.
pub const MAXIMUM_DEPTH: u8 = 32;

/// Most values in a document, in values of 32 bytes of memory; arrays, objects and their items all count. A value can
/// be two bytes of text but takes far more in memory. Members are counted by the nodes of memory that hold them.
pub const MAXIMUM_VALUES: usize = 20_000;

/// Members of an object that fill a node of memory at least, and the size of a node with its names, in values.
const MEMBERS_OF_NODE: usize = 6;
const NODE: usize = 20;

/// Prefix of member names that serde_json treats specially (with the feature `raw_value`, which axum turns on). It
/// would expand such a member when it reads the value again, after all checks here.
const RESERVED_PREFIX: &str = "$serde_json::private::";

/// The reason why a document is refused, with its position.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StrictJsonError(#[from] serde_json::Error);

/// Parses a document that holds one value. Refuses duplicate members, nesting deeper than [`MAXIMUM_DEPTH`], more
/// values than [`MAXIMUM_VALUES`], member names reserved by serde_json, and anything but white space after the value.
pub fn from_slice(document: &[u8]) -> Result<Value, StrictJsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let values_left = Cell::new(MAXIMUM_VALUES);
    let value = Strict { depth_left: MAXIMUM_DEPTH, values_left: &values_left }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Bounds of a document that is only checked.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Greatest depth of nested arrays and objects.
    pub depth: u8,
    /// Most values.
    pub values: usize,
}

/// Checks a document like [`from_slice`] within these bounds, without building the value.
///
/// # Errors
/// If it is not one JSON value, is out of bounds, or is ambiguous.
pub fn check(document: &[u8], bounds: Bounds) -> Result<(), StrictJsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(document);
    let values_left = Cell::new(bounds.values);
    Checked(Strict { depth_left: bounds.depth, values_left: &values_left }).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(())
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth_left: u8,
    values_left: &'a Cell<usize>,
}

impl Strict<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, ..self }),
            None => Err(E::custom("nested too deeply")),
        }
    }

    fn count<E: Error>(self, values: usize) -> Result<(), E> {
        match self.values_left.get().checked_sub(values) {
            Some(values_left) => self.values_left.set(values_left),
            None => return Err(E::custom("too many values")),
        }
        Ok(())
    }
}

fn check_name<E: Error>(name: &str, is_new: bool) -> Result<(), E> {
    if name.starts_with(RESERVED_PREFIX) {
        return Err(E::custom(format_args!("no member may be named {name:?}")));
    }
    match is_new {
        true => Ok(()),
        false => Err(E::custom(format_args!("member {name:?} occurs twice"))),
    }
}

/// The same check, which builds no value.
#[derive(Clone, Copy)]
struct Checked<'a>(Strict<'a>);

impl<'de> DeserializeSeed<'de> for Checked<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.count(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = Self(self.0.deeper()?);
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = Self(self.0.deeper()?);
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            check_name(&name, !names.contains(&name))?;
            members.next_value_seed(inner)?;
            names.insert(name);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.count(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
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
            check_name(&name, !object.contains_key(&name))?;
            if object.len().is_multiple_of(MEMBERS_OF_NODE) {
                self.count(NODE)?;
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
        assert!(error.contains("nested too deeply"), "{error}");
    }

    #[test]
    fn values_are_accepted_up_to_the_limit_and_refused_beyond() {
        let seven = r#"{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0}"#;
        for (item, values) in
            [("0", 1), ("[]", 1), ("{}", 1), (r#"{"a":0}"#, 2 + NODE), (seven, 8 + 2 * NODE), ("[0,0,0]", 4)]
        {
            let most = (MAXIMUM_VALUES - 1) / values;
            let document = |items: usize| format!("[{}]", vec![item; items].join(","));
            from_slice(document(most).as_bytes()).unwrap();
            let error = from_slice(document(most + 1).as_bytes()).unwrap_err().to_string();
            assert!(error.contains("too many values"), "{item}: {error}");
        }
    }

    #[test]
    fn a_member_that_serde_json_keeps_for_itself_is_refused() {
        let hidden = r#"{"params":{"$serde_json::private::RawValue":"{\"name\":\"a\",\"name\":\"b\"}"}}"#;
        for document in [hidden, &hidden.replace("RawValue", "Number"), &hidden.replace("$", "\\u0024")] {
            let error = from_slice(document.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("no member may be named"), "{document}: {error}");
        }
        from_slice(br#"{"$serde_json":{"private":"$serde_json::private::RawValue"}}"#).unwrap();
    }

    #[test]
    fn a_document_that_is_only_checked_is_held_to_the_same() {
        let bounds = Bounds { depth: 3, values: 6 };
        for (document, told) in [
            (r#"{"a":[1,{"b":-2.5}],"c":"x"}"#, ""),
            (r#"{"a":{"b":1,"b":2}}"#, "occurs twice"),
            (r#"{"a":1,"\u0061":2}"#, "occurs twice"),
            ("[[[[]]]]", "nested too deeply"),
            ("[1,2,3,4,5]", ""),
            ("[1,2,3,4,5,6]", "too many values"),
            (r#"{"$serde_json::private::RawValue":"1"}"#, "no member may be named"),
            ("{} {}", "trailing"),
        ] {
            let error = check(document.as_bytes(), bounds).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(told) && error.is_empty() == told.is_empty(), "{document}: {error}");
        }
    }

    #[test]
    fn anything_after_the_value_is_refused() {
        from_slice(b"{} {}").unwrap_err();
        from_slice(b"{}x").unwrap_err();
    }
}
