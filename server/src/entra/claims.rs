//! Claims challenges: what a token must satisfy before its resource accepts it, as Entra and Graph say it in JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Map, Value, json};

/// Longest challenge that is passed on: it has to fit into a header.
const MAXIMUM_LENGTH: usize = 4 * 1024;

/// A claims request (OpenID Connect Core section 5.5), as a compact JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimsChallenge(String);

impl ClaimsChallenge {
    /// The challenge in this JSON, if it is a non-empty object of reasonable length.
    pub fn parse(json: &str) -> Option<Self> {
        let request: Map<String, Value> = serde_json::from_str(json).ok()?;
        let text = Value::Object(request).to_string();
        (text.len() <= MAXIMUM_LENGTH && text != "{}").then_some(Self(text))
    }

    /// The challenge in this base64 of JSON, in either alphabet, with padding or without.
    pub fn decode(base64: &str) -> Option<Self> {
        let alphabet = |character| match character {
            '-' => '+',
            '_' => '/',
            other => other,
        };
        let standard: String = base64.trim().trim_end_matches('=').chars().map(alphabet).collect();
        Self::parse(str::from_utf8(&STANDARD_NO_PAD.decode(standard).ok()?).ok()?)
    }

    /// The challenge as JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// The `claims` parameter of an on-behalf-of exchange: the challenge, if there is one, and that this server can answer
/// another (`cp1`). Only to those who say so does Graph send challenges, and tokens that live until one comes.
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
    use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};

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
    fn what_is_not_an_object_of_claims_or_too_long_is_no_challenge() {
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
