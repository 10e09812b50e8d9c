//! Invalid signatures: of others, of other content, or almost valid.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::case::{Base, Case, Category, Change, Parts};
use super::forge::{Forge, PUBLISHED, signed_by_a_stranger};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = of_others();
    cases.extend(nearly());
    cases.extend(tampered());
    cases
}

fn signature(what: &str, change: impl Fn(&Forge, Parts<'_>) -> String + Send + 'static) -> Case {
    Case::new(Category::Signature, what, Change::Signature(Box::new(change)), "bad_signature")
}

fn of_others() -> Vec<Case> {
    let message = |part: &str| part.as_bytes().to_vec();
    vec![
        signature("a stranger's", |_, parts| signed_by_a_stranger(parts.signed_part)),
        signature("of another token", |forge, _| forge.token(Base::Application).rsplit('.').next().unwrap().to_owned()),
        signature("of the claims alone", move |_, parts| {
            PUBLISHED.sign(&message(parts.signed_part.split('.').nth(1).unwrap()), Algorithm::RS256)
        }),
        signature("of the header alone", |_, parts| {
            PUBLISHED.sign(parts.signed_part.split('.').next().unwrap().as_bytes(), Algorithm::RS256)
        }),
        signature("of what is encoded (RFC 7797)", |_, parts| {
            let (header, claims) = parts.signed_part.split_once('.').unwrap();
            let raw = [header.as_bytes(), b".", &URL_SAFE_NO_PAD.decode(claims).unwrap()].concat();
            PUBLISHED.sign(&raw, Algorithm::RS256)
        }),
        signature("of nothing", |_, _| PUBLISHED.sign(b"", Algorithm::RS256)),
        signature("by RS384", |_, parts| PUBLISHED.sign(parts.signed_part.as_bytes(), Algorithm::RS384)),
        signature("by RS512", |_, parts| PUBLISHED.sign(parts.signed_part.as_bytes(), Algorithm::RS512)),
        signature("by PS256", |_, parts| PUBLISHED.sign(parts.signed_part.as_bytes(), Algorithm::PS256)),
    ]
}

/// The valid signature, with a change to its bytes.
fn bytes(what: &str, change: fn(&mut Vec<u8>)) -> Case {
    signature(what, move |_, parts| {
        let mut bytes = URL_SAFE_NO_PAD.decode(parts.signature).unwrap();
        change(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    })
}

/// The valid signature, with a change to its text.
fn text(what: &str, change: fn(&str) -> String) -> Case {
    signature(what, move |_, parts| change(parts.signature))
}

fn nearly() -> Vec<Case> {
    vec![
        text("none", |_| String::new()),
        text("cut by a character", |text| text[..text.len() - 1].to_owned()),
        text("without its first character", |text| text[1..].to_owned()),
        text("with one character more", |text| format!("{text}A")),
        text("twice", |text| text.repeat(2)),
        text("padded", |text| format!("{text}==")),
        text("in the other alphabet of base64", |text| STANDARD.encode(URL_SAFE_NO_PAD.decode(text).unwrap())),
        // 256 bytes leave four bits of the last character unused: a lax decoder reads sixteen texts as one signature.
        text("with unused bits set", |text| {
            let last = text.chars().last().unwrap();
            let other = char::from(u8::try_from(last).unwrap() + 1);
            format!("{}{other}", &text[..text.len() - 1])
        }),
        bytes("one bit of the first byte", |bytes| bytes[0] ^= 1),
        bytes("one bit in the middle", |bytes| bytes[128] ^= 0x80),
        bytes("one bit of the last byte", |bytes| bytes[255] ^= 1),
        bytes("a byte longer, with zero", |bytes| bytes.push(0)),
        bytes("a byte longer, zero first", |bytes| bytes.insert(0, 0)),
        bytes("backwards", |bytes| bytes.reverse()),
        bytes("all zero", |bytes| bytes.fill(0)),
        bytes("all ones", |bytes| bytes.fill(0xFF)),
        bytes("the number one", |bytes| {
            bytes.fill(0);
            bytes[255] = 1;
        }),
    ]
}

/// A token whose part at this index was changed after it was signed.
fn part(what: String, index: usize, change: impl Fn(&mut Value) + Send + 'static) -> Case {
    let change = move |token: &str| {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let mut value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&parts[index]).unwrap()).unwrap();
        change(&mut value);
        parts[index] = URL_SAFE_NO_PAD.encode(value.to_string());
        parts.join(".")
    };
    Case::new(Category::Signature, what, Change::Token(Box::new(change)), "bad_signature")
}

fn tampered() -> Vec<Case> {
    let claims = [
        ("roles", serde_json::json!(["Mcp.Admin"])),
        ("scp", serde_json::json!("mcp.access other.scope")),
        ("oid", serde_json::json!("aaaa0000-0000-4000-8000-000000000003")),
        ("exp", serde_json::json!(4_000_000_000_u64)),
        ("groups", serde_json::json!(["aaaa0000-0000-4000-8000-000000000003"])),
        ("azp", serde_json::json!("aaaa0000-0000-4000-8000-000000000003")),
        ("xms_cc", serde_json::json!(["cp1"])),
        ("acrs", serde_json::json!(["c1"])),
    ];
    let mut cases: Vec<Case> = claims
        .into_iter()
        .map(|(name, value)| {
            part(format!("{name} changed after signing"), 1, move |claims| claims[name] = value.clone())
        })
        .collect();
    cases.push(part("header changed after signing".to_owned(), 0, |header| header["typ"] = "at+jwt".into()));
    let swapped = |token: &str| {
        let (signed_part, signature) = token.rsplit_once('.').unwrap();
        let mut claims = URL_SAFE_NO_PAD.decode(signed_part.split_once('.').unwrap().1).unwrap();
        claims.push(b' ');
        format!("{}.{}.{signature}", signed_part.split('.').next().unwrap(), URL_SAFE_NO_PAD.encode(claims))
    };
    cases.push(Case::new(
        Category::Signature,
        "white space after signing",
        Change::Token(Box::new(swapped)),
        "bad_signature",
    ));
    cases
}
