//! Claims challenges: JSON requirements for a token that Entra or Graph sends.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

/// Longest challenge that is passed on, in bytes. It must fit into a header.
const MAXIMUM_LENGTH: usize = 4 * 1024;

/// A claims request (OpenID Connect Core section 5.5), as a compact JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimsChallenge(String);

/// The purpose of a user's next sign-in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SignIn {
    /// The previous sign-in is no longer valid.
    Anew,
    /// The sign-in must satisfy these claims, for example by a second factor.
    Satisfying(ClaimsChallenge),
    /// The user must consent to these permissions of Microsoft Graph, if an administrator need not do so.
    Consenting(Vec<String>),
}

impl ClaimsChallenge {
    /// Returns a sign-in that satisfies this authentication context of Conditional Access.
    pub fn authentication_context(context: &str) -> Self {
        Self(json!({ "access_token": { "acrs": { "essential": true, "value": context } } }).to_string())
    }

    /// Parses a challenge from JSON: a non-empty object of limited length.
    pub fn parse(json: &str) -> Option<Self> {
        let request: Map<String, Value> = serde_json::from_str(json).ok()?;
        let text = Value::Object(request).to_string();
        (text.len() <= MAXIMUM_LENGTH && text != "{}").then_some(Self(text))
    }

    /// Decodes a challenge from base64 of JSON, in either alphabet, with or without padding.
    pub fn decode(base64: &str) -> Option<Self> {
        let alphabet = |character| match character {
            '-' => '+',
            '_' => '/',
            other => other,
        };
        let standard: String = base64.trim().trim_end_matches('=').chars().map(alphabet).collect();
        Self::parse(str::from_utf8(&STANDARD_NO_PAD.decode(standard).ok()?).ok()?)
    }

    /// Returns the challenge as JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Returns the challenge as base64 of JSON, in a form that every decoder accepts. Its length needs no padding,
    /// and ASCII without `>`, `?` and `~` is the same in both alphabets.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for character in self.0.chars() {
            match character {
                ' '..='~' if !matches!(character, '>' | '?' | '~') => text.push(character),
                // In JSON, these characters occur only inside strings.
                _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text += &format!("\\u{unit:04x}")),
            }
        }
        while !text.len().is_multiple_of(3) {
            text.push(' ');
        }
        URL_SAFE_NO_PAD.encode(text)
    }
}

/// Returns the `claims` parameter of an on-behalf-of exchange: the challenge, if any, and the capability `cp1`. Graph
/// sends challenges, and gives long-lived tokens, only to clients with this capability.
pub(super) fn request(challenge: Option<&ClaimsChallenge>) -> String {
    let mut request: Map<String, Value> =
        challenge.and_then(|challenge| serde_json::from_str(&challenge.0).ok()).unwrap_or_default();
    let access_token = request.entry("access_token").or_insert_with(|| json!({}));
    match access_token.as_object_mut() {
        Some(claims) => _ = claims.insert("xms_cc".to_owned(), json!({ "values": ["cp1"] })),
        None => *access_token = json!({ "xms_cc": { "values": ["cp1"] } }),
    }
    Value::Object(request).to_string()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    #[test]
    fn a_challenge_is_decoded_from_either_alphabet_with_padding_or_without() {
        for value in ["1657834417", "1?>~?>", "ü"] {
            let text = json!({ "access_token": { "nbf": { "essential": true, "value": value } } }).to_string();
            let expected = ClaimsChallenge::parse(&text).unwrap();
            for encoded in [
                STANDARD.encode(&text),
                STANDARD_NO_PAD.encode(&text),
                URL_SAFE.encode(&text),
                URL_SAFE_NO_PAD.encode(&text),
                format!(" {} ", STANDARD.encode(&text)),
            ] {
                assert_eq!(ClaimsChallenge::decode(&encoded), Some(expected.clone()), "{encoded}");
            }
        }
    }

    #[test]
    fn a_challenge_is_encoded_so_that_either_alphabet_reads_it() {
        for value in ["c1", "c25", "1?>~?>", "a?b>c~", "ü", "\u{1F600}", "\"\\\n"] {
            let text = json!({ "access_token": { "acrs": { "essential": true, "value": value } } }).to_string();
            let challenge = ClaimsChallenge::parse(&text).unwrap();
            let encoded = challenge.encode();
            let read = |bytes: Vec<u8>| ClaimsChallenge::parse(str::from_utf8(&bytes).unwrap()).unwrap();
            assert_eq!(read(URL_SAFE_NO_PAD.decode(&encoded).unwrap()), challenge, "{value}");
            assert_eq!(read(STANDARD.decode(&encoded).unwrap()), challenge, "{value}");
        }
        let context = ClaimsChallenge::authentication_context("c1");
        assert_eq!(ClaimsChallenge::decode(&context.encode()), Some(context));
    }

    #[test]
    fn a_text_that_is_too_long_or_not_an_object_of_claims_is_not_a_challenge() {
        let long = json!({ "access_token": { "nbf": { "value": "x".repeat(MAXIMUM_LENGTH) } } }).to_string();
        for text in ["", "{}", "[]", "null", "nbf", "{", &long] {
            assert_eq!(ClaimsChallenge::parse(text), None, "{text}");
            assert_eq!(ClaimsChallenge::decode(&STANDARD.encode(text)), None, "{text}");
        }
        assert_eq!(ClaimsChallenge::decode("%%%"), None);
    }

    #[test]
    fn an_exchange_asks_for_what_was_challenged_and_says_that_it_can_be_challenged_again() {
        let read = |challenge: Option<&str>| {
            let challenge = challenge.map(|text| ClaimsChallenge::parse(text).unwrap());
            serde_json::from_str::<Value>(&request(challenge.as_ref())).unwrap()
        };
        let cp1 = json!({ "values": ["cp1"] });
        assert_eq!(read(None), json!({ "access_token": { "xms_cc": cp1 } }));
        assert_eq!(
            read(Some(r#"{"access_token":{"nbf":{"essential":true,"value":"1"}},"id_token":{"a":null}}"#)),
            json!({
                "access_token": { "nbf": { "essential": true, "value": "1" }, "xms_cc": cp1 },
                "id_token": { "a": null },
            })
        );
        assert_eq!(read(Some(r#"{"access_token":null}"#)), json!({ "access_token": { "xms_cc": cp1 } }));
    }
}
