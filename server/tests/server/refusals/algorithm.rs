//! Every algorithm except RS256, each with a valid signature if one exists.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::case::{Case, Category, Change, Signature};
use super::forge::PUBLISHED;

const REASON: &str = "algorithm_not_accepted";

pub(super) fn cases() -> Vec<Case> {
    let case = |alg: Option<Value>, how: &str, signature| {
        let what = format!("alg {alg:?}, {how}");
        Case::new(Category::Algorithm, what, Change::Algorithm(alg, signature), REASON)
    };
    let none =
        ["none", "None", "NONE", "nOnE", "", "null"].map(|name| case(Some(json!(name)), "unsigned", Signature::None));
    let rsa = [
        ("RS384", Algorithm::RS384),
        ("RS512", Algorithm::RS512),
        ("PS256", Algorithm::PS256),
        ("PS384", Algorithm::PS384),
        ("PS512", Algorithm::PS512),
    ]
    .map(|(name, algorithm)| case(Some(json!(name)), "signed so", Signature::Rsa(algorithm)));
    // A verifier that trusts the token's algorithm uses the public key as a shared secret (RFC 8725 section 2.1).
    let secrets = [
        ("the PEM", PUBLISHED.public_pem.as_bytes().to_vec()),
        ("the PEM without its last line feed", PUBLISHED.public_pem.trim_end().as_bytes().to_vec()),
        ("the DER", PUBLISHED.public_der.clone()),
        ("the modulus", URL_SAFE_NO_PAD.decode(PUBLISHED.modulus()).unwrap()),
        ("the modulus as text", PUBLISHED.modulus().as_bytes().to_vec()),
        ("nothing", vec![]),
    ]
    .map(|(what, secret)| case(Some(json!("HS256")), what, Signature::Hmac(Algorithm::HS256, secret)));
    let longer = [("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)].map(|(name, algorithm)| {
        case(Some(json!(name)), "the PEM", Signature::Hmac(algorithm, PUBLISHED.public_pem.as_bytes().to_vec()))
    });
    let names = [
        "ES256",
        "ES384",
        "ES512",
        "ES256K",
        "EdDSA",
        "Ed25519",
        "RSA1_5",
        "dir",
        "rs256",
        "RS256 ",
        "RS-256",
        "SHA256withRSA",
    ];
    let misnamed = names.map(|name| case(Some(json!(name)), "signed as RS256", Signature::Rsa(Algorithm::RS256)));
    let no_names = [None, Some(json!(null)), Some(json!(256)), Some(json!(["RS256"])), Some(json!({ "alg": "RS256" }))];
    let unnamed = no_names.map(|alg| case(alg, "signed as RS256", Signature::Rsa(Algorithm::RS256)));

    let mut cases = vec![case(None, "unsigned", Signature::None)];
    cases.extend(none);
    cases.extend(rsa);
    cases.extend(secrets);
    cases.extend(longer);
    cases.extend(misnamed);
    cases.extend(unnamed);
    cases
}
