//! Fuzzing of input from outside: JSON, a token's header, claims and bytes, and the document with the keys.
//!
//! These are ordinary tests with generated inputs and bounded time. Set `PROPTEST_CASES=1000000` for a long run.

mod claims;
mod header;
mod json;
mod keys;

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::assertion::Assertion;
use super::claims::Expected;
use super::claims::tests::{NOW, expected_with, user_claims};
use super::jwt::UnverifiedToken;
use super::keys::{KeySet, tests::published};
use super::{Principal, TokenError, claims as reading};

/// Cases of each property, unless the environment asks for more.
const CASES: u32 = 1000;

fn bounded() -> ProptestConfig {
    let by_default = ProptestConfig::default();
    ProptestConfig { cases: by_default.cases.max(CASES), ..by_default }
}

/// The signing key of good tokens, and the document that publishes it.
struct Signer {
    private: EncodingKey,
    document: Value,
}

static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
    let jwk = serde_json::to_value(Jwk::from_encoding_key(&private, Algorithm::RS256).unwrap()).unwrap();
    let mut key = published();
    (key["n"], key["e"]) = (jwk["n"].clone(), jwk["e"].clone());
    Signer { private, document: json!({ "keys": [key] }) }
});

fn header() -> Value {
    json!({ "typ": "JWT", "alg": "RS256", "kid": "one" })
}

/// Returns a token with this header, these claims and a valid signature.
fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &SIGNER.private, Algorithm::RS256).unwrap();
    format!("{message}.{signature}")
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| SIGNER.document.to_string());
static EXPECTED: LazyLock<Expected> = LazyLock::new(|| expected_with(&json!({})));
static GOOD_TOKEN: LazyLock<String> =
    LazyLock::new(|| signed(header().to_string().as_bytes(), user_claims().to_string().as_bytes()));

/// Returns the principal of a token, verified with the keys in this document at [`NOW`].
fn judged_by(document: &[u8], token: &str) -> Result<Principal, TokenError> {
    let keys = KeySet::parse(document, None, tokio::time::Instant::now()).map_err(|_| TokenError::KeysUnavailable)?;
    let unverified = UnverifiedToken::parse(token)?;
    let verified = unverified.verify(keys.find(unverified.key_id()).ok_or(TokenError::UnknownKey)?)?;
    reading::principal(&verified, Assertion::for_test(), &EXPECTED, NOW)
}

fn judged(token: &str) -> Result<Principal, TokenError> {
    judged_by(DOCUMENT.as_bytes(), token)
}

/// Any JSON, biased to the contents of tokens.
fn any_json() -> impl Strategy<Value = Value> {
    let texts = ["", "RS256", "none", "HS256", "one", "1.0", "2.0", "app", "user", "mcp.access", "cp1", "Mcp.Reader"];
    let claims = user_claims();
    let of_tokens = Vec::from_iter(claims.as_object().unwrap().values().cloned());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (NOW - 7200..NOW + 7200).prop_map(Value::from),
        select(texts.to_vec()).prop_map(Value::from),
        select(of_tokens),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(".{0,4}", inner, 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Changes of up to four members of an object: replaced, removed (`None`) or added.
fn changes(names: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, Option<Value>)>> {
    vec((select(names), proptest::option::weighted(0.9, any_json())), 1..5)
}

fn changed(mut object: Value, changes: Vec<(&str, Option<Value>)>) -> Value {
    let members = object.as_object_mut().unwrap();
    for (name, value) in changes {
        match value {
            Some(value) => _ = members.insert(name.to_owned(), value),
            None => _ = members.remove(name),
        }
    }
    object
}

/// Changes of bytes in up to four places of a text.
#[derive(Clone, Debug)]
enum Mutation {
    Replace(Index, u8),
    Flip(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Swap(Index, Index),
    Repeat(Index, Index),
    Cut(Index),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let byte = prop_oneof![any::<u8>(), select(b".-_+/=AQgwZ09 \0{}[]\",:\\".to_vec()),];
    let one = prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        (any::<Index>(), byte).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<Index>().prop_map(Mutation::Remove),
        (any::<Index>(), any::<Index>()).prop_map(|(at, other)| Mutation::Swap(at, other)),
        (any::<Index>(), any::<Index>()).prop_map(|(at, other)| Mutation::Repeat(at, other)),
        any::<Index>().prop_map(Mutation::Cut),
    ];
    vec(one, 1..5)
}

fn mutated(text: &str, mutations: Vec<Mutation>) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for mutation in mutations.into_iter() {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match mutation {
            Mutation::Replace(at, byte) => bytes[at.index(length)] = byte,
            Mutation::Flip(at, bit) => bytes[at.index(length)] ^= bit,
            Mutation::Insert(at, byte) => bytes.insert(at.index(length + 1), byte),
            Mutation::Remove(at) => _ = bytes.remove(at.index(length)),
            Mutation::Swap(at, other) => bytes.swap(at.index(length), other.index(length)),
            Mutation::Repeat(at, other) => {
                let (start, end) =
                    (at.index(length).min(other.index(length)), at.index(length).max(other.index(length)));
                bytes.extend_from_within(start..end);
            }
            Mutation::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}

#[test]
fn the_base_token_is_accepted() {
    assert!(matches!(judged(&GOOD_TOKEN), Ok(Principal::User(_))));
}
