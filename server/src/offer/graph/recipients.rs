//! Mail addresses of recipients.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// Longest mail address, in characters (RFC 5321: 64, `@` and 255).
const LONGEST: usize = 320;

/// A list of mail addresses with a limited length.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Addresses<const MINIMUM: usize, const MAXIMUM: usize>(Vec<Address>);

/// A well-formed mail address.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Address(String);

impl Address {
    fn parse(text: String) -> Option<Self> {
        let is_bounded = text.chars().count() <= LONGEST && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        let (local, domain) = text.split_once('@')?;
        let has_one_at = !local.is_empty() && !domain.is_empty() && !domain.contains('@');
        (is_bounded && has_one_at).then_some(Self(text))
    }

    /// Returns the address in the form that Graph expects.
    fn recipient(&self) -> Value {
        json!({ "emailAddress": { "address": self.0 } })
    }
}

impl<const MINIMUM: usize, const MAXIMUM: usize> Addresses<MINIMUM, MAXIMUM> {
    /// Returns the addresses in the form that Graph expects.
    pub(super) fn recipients(&self) -> Vec<Value> {
        self.0.iter().map(Address::recipient).collect()
    }

    /// Returns the addresses as texts.
    pub(super) fn into_texts(self) -> Vec<String> {
        self.0.into_iter().map(|Address(text)| text).collect()
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let address = Self::parse(String::deserialize(deserializer)?);
        address.ok_or_else(|| D::Error::custom("expected a mail address without a name, such as alice@contoso.com"))
    }
}

impl<'de, const MINIMUM: usize, const MAXIMUM: usize> Deserialize<'de> for Addresses<MINIMUM, MAXIMUM> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let addresses = Vec::deserialize(deserializer)?;
        match (MINIMUM..=MAXIMUM).contains(&addresses.len()) {
            true => Ok(Self(addresses)),
            false => Err(D::Error::custom(format!("expected {MINIMUM} to {MAXIMUM} mail addresses"))),
        }
    }
}

impl<const MINIMUM: usize, const MAXIMUM: usize> JsonSchema for Addresses<MINIMUM, MAXIMUM> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Addresses{MINIMUM}To{MAXIMUM}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let address = json_schema!({ "type": "string", "maxLength": LONGEST });
        json_schema!({ "type": "array", "items": address, "minItems": MINIMUM, "maxItems": MAXIMUM })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_at_between_two_parts_and_nothing_that_separates_addresses() {
        let longest = format!("{}@contoso.com", "a".repeat(LONGEST - "@contoso.com".len()));
        for good in ["alice@contoso.com", "a+b.c@x", "älice@contoso.example", &longest] {
            assert!(Address::parse(good.to_owned()).is_some(), "{good}");
        }
        for bad in [
            "",
            "@",
            "alice",
            "@contoso.com",
            "alice@",
            "alice@a@b",
            "Alice <alice@contoso.com>",
            "alice@contoso.com bob@contoso.com",
            " alice@contoso.com",
            "alice@contoso.com\n",
            "alice@contoso.com\r\nBcc:bob@contoso.com",
            "alice\u{0}@contoso.com",
            "alice\u{a0}@contoso.com",
            &format!("a{longest}"),
        ] {
            assert_eq!(Address::parse(bad.to_owned()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_list_takes_as_many_addresses_as_its_schema_says() {
        let list = |count| json!(vec!["alice@contoso.com"; count]);
        for (count, one_to_three, up_to_three) in
            [(0, false, true), (1, true, true), (3, true, true), (4, false, false)]
        {
            assert_eq!(serde_json::from_value::<Addresses<1, 3>>(list(count)).is_ok(), one_to_three, "{count}");
            assert_eq!(serde_json::from_value::<Addresses<0, 3>>(list(count)).is_ok(), up_to_three, "{count}");
        }
    }
}
