//! Tokens of Entra for other purposes, and claims without a clear purpose.

use serde_json::{Value, json};

use super::case::{Base, Case, Category, Change};
use super::forge::{Forge, signed};

pub(super) fn cases(forge: &Forge) -> Vec<Case> {
    let claim = |name, value: Option<Value>, reason| Case::claim(Category::TokenType, name, value, reason);
    let mut cases = others(forge);
    cases.extend([
        claim("scp", None, "id_token"),
        claim("scp", Some(json!("")), "neither_user_nor_application"),
        claim("scp", Some(json!("  ")), "neither_user_nor_application"),
        claim("idtyp", Some(json!("app")), "neither_user_nor_application"),
        claim("idtyp", Some(json!(null)), "bad_claim"),
        claim("idtyp", Some(json!(1)), "bad_claim"),
        claim("idtyp", Some(json!(["app"])), "bad_claim"),
        claim("azp", None, "id_token").of(Base::Application),
        claim("sub", None, "id_token").of(Base::Application),
        claim("sub", Some(json!("pairwise")), "id_token").of(Base::Application),
        claim("sub", Some(json!(forge.tenant)), "id_token").of(Base::Application),
        claim("oid", None, "id_token").of(Base::Application),
        claim("idtyp", Some(json!("user")), "id_token").of(Base::Application),
        claim("idtyp", Some(json!("App")), "id_token").of(Base::Application),
        claim("idtyp", Some(json!("device")), "id_token").of(Base::Application),
        claim("scp", Some(json!("")), "neither_user_nor_application").of(Base::Application),
        claim("appid", None, "id_token").of(Base::ApplicationOfVersion1),
        claim("scp", None, "id_token").of(Base::UserOfVersion1),
    ]);
    for bound in [json!({ "jwk": {} }), json!({ "kid": "device" }), json!({ "x5t#S256": "x" }), json!({}), json!(null)]
    {
        cases.push(claim("cnf", Some(bound), "bound_token"));
    }
    cases.push(claim("cnf", Some(json!({ "kid": "device" })), "bound_token").of(Base::Application));
    for version in
        [json!("3.0"), json!("2"), json!("2.0 "), json!(""), json!(2.0), json!(2), json!(null), json!(["2.0"])]
    {
        cases.push(claim("ver", Some(version), "bad_claim"));
    }
    cases.push(claim("ver", None, "bad_claim"));
    cases.push(claim("ver", Some(json!("1.0")), "version_1_token"));
    cases.push(claim("ver", Some(json!("2.0")), "another_issuer").of(Base::UserOfVersion1));
    cases
}

/// Whole tokens of other kinds.
fn others(forge: &Forge) -> Vec<Case> {
    let case = |what: &str, change, reason| Case::new(Category::TokenType, what, change, reason);
    let claims = |claims: &Value| Change::Claims(claims.clone());
    let token = |token: String| Change::Token(Box::new(move |_| token.clone()));
    let mut without_roles = forge.id_token_claims.clone();
    without_roles.as_object_mut().unwrap().remove("roles");
    let mut with_hash = forge.id_token_claims.clone();
    with_hash["at_hash"] = json!("x");
    with_hash["nonce"] = json!("x");
    // RFC 7523: a client's assertion for the token endpoint, here even with the right key.
    let assertion = json!({
        "iss": forge.clients()[0], "sub": forge.clients()[0], "aud": forge.server, "iat": forge.now,
        "nbf": forge.now, "exp": forge.now + 600, "jti": "x",
    });
    vec![
        case("an ID token", claims(&forge.id_token_claims), "id_token"),
        case("an ID token without roles", claims(&without_roles), "id_token"),
        case("an ID token with hash and nonce", claims(&with_hash), "id_token"),
        case("a client assertion", claims(&assertion), "bad_claim"),
        case("a user's token of version 1", claims(forge.claims(Base::UserOfVersion1)), "version_1_token"),
        case(
            "an application's token of version 1",
            claims(forge.claims(Base::ApplicationOfVersion1)),
            "version_1_token",
        ),
        case("a token for Graph", token(forge.graph_token.clone()), "graph_token"),
        case("a projected service account token", token(forge.projected_token.clone()), "unknown_key"),
        case("a refresh token", token("0.AXoA1234567890.AgABAwEAAAD".to_owned()), "malformed_token"),
        case("an opaque token", token("EwB4A8l6BAAU".to_owned()), "malformed_token"),
        case("an encrypted token", token(format!("{}.x.y", signed(b"{}", b"{}"))), "malformed_token"),
    ]
}
