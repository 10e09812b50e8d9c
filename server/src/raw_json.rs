//! JSON objects whose values keep their original text. Forwarded values are neither reordered nor rounded.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Members of a JSON object in their original order, each value as its text.
#[derive(Clone, Debug, Default)]
pub struct RawObject(Vec<(String, Box<RawValue>)>);

impl RawObject {
    /// Parses an object. Returns `None` if the text is not an object, or has a duplicate member.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns the value of a member.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| &**value)
    }

    /// Returns the value of a member as this type, or `None` if it is absent or of another type.
    pub fn read<'a, T: Deserialize<'a>>(&'a self, name: &str) -> Option<T> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// Removes a member and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Box<RawValue>> {
        let at = self.0.iter().position(|(member, _)| member == name)?;
        Some(self.0.remove(at).1)
    }

    /// Keeps the members whose names satisfy the predicate.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(member, _)| keep(member));
    }

    /// Sets a member, in its present place or at the end.
    pub fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(member, _)| member == name) {
            Some((_, there)) => *there = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// True if there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the object as JSON text in one line. On a transport of lines, a line break in a message would end it,
    /// and the rest could be taken for another message. In JSON, line breaks are only white space between tokens.
    pub fn to_text(&self) -> String {
        let mut text =
            String::with_capacity(self.0.iter().map(|(name, value)| name.len() + value.get().len() + 4).sum());
        for (name, value) in &self.0 {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(&serde_json::Value::from(name.as_str()).to_string());
            text.push(':');
            match value.get().contains(['\n', '\r']) {
                true => text.extend(value.get().chars().filter(|letter| !matches!(letter, '\n' | '\r'))),
                false => text.push_str(value.get()),
            }
        }
        if text.is_empty() {
            text.push('{');
        }
        text.push('}');
        text
    }

    /// Converts the object to a JSON value.
    pub fn into_raw(self) -> Box<RawValue> {
        RawValue::from_string(self.to_text()).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

/// Converts a value to JSON text.
pub fn raw(value: &serde_json::Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawObject;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject, A::Error> {
                let (mut members, mut names) = (Vec::new(), HashSet::new());
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("member {name:?} occurs twice")));
                    }
                    members.push((name, value));
                }
                Ok(RawObject(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_text_and_members_their_order() {
        let mut object =
            RawObject::parse(r#"{ "z": 1.10, "a": {"y":1,"x":12345678901234567890123}, "\u00e9\"": [ 1 ] }"#).unwrap();
        assert_eq!(object.to_text(), r#"{"z":1.10,"a":{"y":1,"x":12345678901234567890123},"é\"":[ 1 ]}"#);
        object.set("z", raw(&json!("new")));
        object.set("last", raw(&json!(null)));
        assert_eq!(object.remove("a").unwrap().get(), r#"{"y":1,"x":12345678901234567890123}"#);
        assert_eq!(object.to_text(), r#"{"z":"new","é\"":[ 1 ],"last":null}"#);
        assert_eq!(RawObject::default().to_text(), "{}");
    }

    #[test]
    fn an_object_is_written_in_one_line_however_it_was_read() {
        let object = RawObject::parse("{\n\"a\": [1,\r\n2],\n\"b\":\"x\\ny\"}").unwrap();
        assert_eq!(object.to_text(), r#"{"a":[1,2],"b":"x\ny"}"#);
    }

    #[test]
    fn a_text_that_is_not_an_object_or_has_a_duplicate_member_is_refused() {
        for text in ["[]", "1", "", r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, "{} {}"] {
            assert!(RawObject::parse(text).is_none(), "{text}");
        }
    }
}
