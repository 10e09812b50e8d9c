//! Tests of tokens that jsonwebtoken accepts by default, and the server refuses. If the library starts to refuse one of
//! these by itself, its assertion here fails.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mcp_entra_policy::TokenVersion;
use serde_json::{Value, json};

use super::case::{Base, Change};
use super::forge::{KEY_ID, PUBLISHED};
use super::{judged, start};

#[tokio::test]
async fn tokens_that_jsonwebtoken_accepts_by_default_are_refused() {
    let (site, forge) = start(&[TokenVersion::V2]).await;
    let claim = Change::Claim;
    let table = [
        ("an unknown crit", Change::Header("crit", Some(json!(["unknown"]))), "critical_header"),
        ("a future nbf", claim("nbf", Some(json!(forge.now + 7200))), "not_yet_valid"),
        ("an nbf that is not a time", claim("nbf", Some(json!("tomorrow"))), "bad_claim"),
        ("a future iat", claim("iat", Some(json!(forge.now + 7200))), "not_yet_valid"),
        ("no aud", claim("aud", None), "bad_claim"),
        ("an aud among others", claim("aud", Some(json!([forge.server, "another"]))), "bad_claim"),
        ("no iss", claim("iss", None), "bad_claim"),
        ("an iss among others", claim("iss", Some(json!([forge.issuer, "another"]))), "bad_claim"),
        ("an exp with a fraction", claim("exp", Some(json!(forge.now as f64 + 600.5))), "bad_claim"),
        (
            "the last of two oid",
            Change::ClaimsText(Box::new(|text| format!(r#"{},"oid":"another"}}"#, text.trim_end_matches('}')).into())),
            "malformed_token",
        ),
    ];
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[forge.server]);
    validation.set_issuer(&[&forge.issuer]);
    let key = DecodingKey::from_rsa_components(PUBLISHED.modulus(), PUBLISHED.exponent()).unwrap();
    let library = |authorization: &[String]| {
        jsonwebtoken::decode::<Value>(authorization[0].strip_prefix("Bearer ").unwrap(), &key, &validation)
    };
    library(&forge.bearer(Base::User)).unwrap();
    library(&forge.with_claim("aud", json!("another"))).unwrap_err();
    for (what, change, reason) in table {
        let authorization = forge.apply(Base::User, &change);
        assert!(library(&authorization).is_ok(), "{what}: {:?}", library(&authorization));
        assert_eq!(judged(&site, authorization).await, (401, reason.to_owned()), "{what}");
    }
}

#[tokio::test]
async fn jsonwebtoken_drops_the_issuer_of_a_key_and_the_server_checks_it() {
    let (site, forge) = start(&[TokenVersion::V2]).await;
    let published = PUBLISHED.published_as(KEY_ID, "https://login.microsoftonline.com/{tenantid}/v2.0");
    let read: Jwk = serde_json::from_value(published).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap().get("issuer"), None);
    let judgement = judged(&site, forge.with_header("kid", json!("for-the-public-cloud"))).await;
    assert_eq!(judgement, (401, "key_of_another_issuer".to_owned()));
}
