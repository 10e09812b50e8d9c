//! Duplicate parts: one reader might check the first, and another use the second.

use serde_json::{Value, json};

use super::case::{Base, Case, Category, Change, TextChange};
use super::forge::Forge;

const MALFORMED: &str = "malformed_token";

pub(super) fn cases(forge: &Forge) -> Vec<Case> {
    let mut cases = members(forge);
    cases.extend(authorization_headers());
    cases
}

/// Returns the text with this member before all others.
fn in_front(member: String) -> impl Fn(&str) -> Vec<u8> + Send + use<> {
    move |text| format!("{{{member},{}", &text[1..]).into_bytes()
}

/// Returns the text with this member after all others.
fn behind(member: String) -> impl Fn(&str) -> Vec<u8> + Send + use<> {
    move |text| format!("{},{member}}}", &text[..text.len() - 1]).into_bytes()
}

fn members(forge: &Forge) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut claims = |what: String, change: TextChange| {
        cases.push(Case::new(Category::Duplicates, what, Change::ClaimsText(change), MALFORMED));
    };
    let user = forge.claims(Base::User).as_object().unwrap();
    for (name, value) in user {
        claims(format!("{name} twice"), Box::new(behind(format!("\"{name}\":{value}"))));
    }
    for name in ["aud", "iss", "tid", "oid", "scp", "roles", "exp", "azp"] {
        let another: Value = json!("another");
        claims(format!("another {name} first"), Box::new(in_front(format!("\"{name}\":{another}"))));
        claims(format!("another {name} last"), Box::new(behind(format!("\"{name}\":{another}"))));
    }
    claims("aud twice, once escaped".to_owned(), Box::new(behind(r#""\u0061ud":"another""#.to_owned())));
    claims("twice inside another claim".to_owned(), Box::new(behind(r#""x":[{"y":1,"y":1}]"#.to_owned())));
    for (name, value) in [("alg", "none"), ("alg", "RS256"), ("kid", "another"), ("typ", "JWT"), ("x5t", "another")] {
        let change = Change::HeaderText(Box::new(in_front(format!("\"{name}\":\"{value}\""))));
        cases.push(Case::new(Category::Duplicates, format!("header: {name} {value} twice"), change, MALFORMED));
    }
    cases
}

fn authorization_headers() -> Vec<Case> {
    let case = |what: &str, change: fn(&str) -> Vec<String>| {
        let change = Change::Authorization(Box::new(change));
        Case::new(Category::Duplicates, what, change, "malformed_authorization")
    };
    vec![
        case("the header twice", |token| vec![format!("Bearer {token}"), format!("Bearer {token}")]),
        case("a good header, then a bad one", |token| vec![format!("Bearer {token}"), "Bearer x".to_owned()]),
        case("a bad header, then a good one", |token| vec!["Bearer x".to_owned(), format!("Bearer {token}")]),
        case("another scheme besides", |token| vec!["Basic YTpi".to_owned(), format!("Bearer {token}")]),
        case("an empty header besides", |token| vec![format!("Bearer {token}"), String::new()]),
        case("two in one header", |token| vec![format!("Bearer {token}, Bearer {token}")]),
        case("two tokens after the scheme", |token| vec![format!("Bearer {token} {token}")]),
        case("the scheme twice", |token| vec![format!("Bearer Bearer {token}")]),
        case("a token in quotes", |token| vec![format!("Bearer \"{token}\"")]),
        case("a token with a tab", |token| vec![format!("Bearer {token}\t{token}")]),
    ]
}
