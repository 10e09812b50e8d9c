//! Tokens with an invalid form: size, nesting, encoding and JSON. All of it is signed as written, wherever possible.

use super::case::{Case, Category, Change};

const MALFORMED: &str = "malformed_token";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = sizes();
    cases.extend(documents());
    cases.extend(texts());
    cases.extend(compact_forms());
    cases
}

/// One more member before the others.
fn with_member(member: &str) -> impl Fn(&str) -> Vec<u8> + Send + use<> {
    let start = format!("{{{member},");
    move |text| text.replacen('{', &start, 1).into_bytes()
}

fn claims(what: &str, change: impl Fn(&str) -> Vec<u8> + Send + 'static, reason: &'static str) -> Case {
    Case::new(Category::Form, format!("claims: {what}"), Change::ClaimsText(Box::new(change)), reason)
}

fn header(what: &str, change: impl Fn(&str) -> Vec<u8> + Send + 'static, reason: &'static str) -> Case {
    Case::new(Category::Form, format!("header: {what}"), Change::HeaderText(Box::new(change)), reason)
}

fn token(what: &str, change: impl Fn(&str) -> String + Send + 'static, reason: &'static str) -> Case {
    Case::new(Category::Form, what, Change::Token(Box::new(change)), reason)
}

fn sizes() -> Vec<Case> {
    let long = format!(r#""padding":"{}""#, "x".repeat(16 * 1024));
    let nested = |open: &str, close: &str| format!(r#""x":{}1{}"#, open.repeat(32), close.repeat(32));
    let (arrays, objects) = (nested("[", "]"), nested(r#"{"x":"#, "}"));
    vec![
        claims("longer than 16 KiB", with_member(&long), "token_too_long"),
        header("longer than 16 KiB", with_member(&long), "token_too_long"),
        token("a signature longer than 16 KiB", |token| format!("{token}{}", "A".repeat(16 * 1024)), "token_too_long"),
        token("16 KiB of dots", |_| ".".repeat(16 * 1024), MALFORMED),
        claims("arrays too deep", with_member(&arrays), MALFORMED),
        claims("objects too deep", with_member(&objects), MALFORMED),
        header("arrays too deep", with_member(&arrays), MALFORMED),
        header("objects too deep", with_member(&objects), MALFORMED),
        claims(
            "arrays without end",
            |text| [text.trim_end_matches('}'), r#","x":"#, &"[".repeat(4000)].concat().into(),
            MALFORMED,
        ),
    ]
}

/// Documents that are not a JSON object.
fn documents() -> Vec<Case> {
    let mut cases = Vec::new();
    for document in ["", " ", "null", "true", "1", "\"x\"", "[]", "[{}]", "<html>", "{", "}", "{}{}"] {
        cases.push(claims(&format!("{document:?}"), |_| document.into(), MALFORMED));
        cases.push(header(&format!("{document:?}"), |_| document.into(), MALFORMED));
    }
    cases
}

/// Documents that a lax parser accepts.
fn texts() -> Vec<Case> {
    let reserved = r#""$serde_json::private::RawValue":"{}""#;
    vec![
        claims("something after the object", |text| format!("{text}x").into(), MALFORMED),
        claims("a byte of zero after the object", |text| format!("{text}\0").into(), MALFORMED),
        claims("a byte order mark", |text| format!("\u{FEFF}{text}").into(), MALFORMED),
        claims("no UTF-8", |text| [text.trim_end_matches('}').as_bytes(), b",\"x\":\"\xFF\"}"].concat(), MALFORMED),
        claims("UTF-16", |text| text.encode_utf16().flat_map(u16::to_le_bytes).collect(), MALFORMED),
        claims("half a surrogate pair", with_member(r#""x":"\ud800""#), MALFORMED),
        claims("a comma too many", |text| text.replace('}', ",}").into(), MALFORMED),
        claims("a comment", |text| format!("/* */{text}").into(), MALFORMED),
        claims("single quotes", |text| text.replace('"', "'").into(), MALFORMED),
        claims("a line feed in a string", with_member("\"x\":\"\n\""), MALFORMED),
        claims("a number of no size", with_member(r#""x":1e999"#), MALFORMED),
        claims("no number", with_member(r#""x":NaN"#), MALFORMED),
        claims("a number with zeros in front", with_member(r#""x":01"#), MALFORMED),
        claims("a hexadecimal number", with_member(r#""x":0x10"#), MALFORMED),
        claims("a member of the parser's own", with_member(reserved), MALFORMED),
        header("something after the object", |text| format!("{text}x").into(), MALFORMED),
        header("no UTF-8", |text| [text.trim_end_matches('}').as_bytes(), b",\"x\":\"\xFF\"}"].concat(), MALFORMED),
        header("a member of the parser's own", with_member(reserved), MALFORMED),
    ]
}

fn compact_forms() -> Vec<Case> {
    let signed = |what: &str, change: fn(&str) -> String| {
        Case::new(Category::Form, what, Change::SignedPart(Box::new(change)), MALFORMED)
    };
    vec![
        signed("a padded header", |part| part.replacen('.', "=.", 1)),
        signed("padded claims", |part| format!("{part}=")),
        signed("no header", |part| format!(".{}", part.split('.').nth(1).unwrap())),
        signed("no claims", |part| format!("{}.", part.split('.').next().unwrap())),
        signed("a part more", |part| format!("{part}.e30")),
        signed("a part less", |part| part.replace('.', "")),
        signed("the other alphabet of base64", |part| format!("{part}+")),
        token("a dot in front", |token| format!(".{token}"), MALFORMED),
        token("a dot behind", |token| format!("{token}."), MALFORMED),
        token("JSON serialization", |token| token.replace('.', "/"), MALFORMED),
    ]
}
