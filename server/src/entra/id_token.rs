//! ID tokens: the account of a sign-in or a refresh.
//!
//! They come directly from the token endpoint over TLS, which proves their issuer (OpenID Connect Core section
//! 3.1.3.7). So their signature is not checked. They give no access: that takes the access token, which Graph
//! validates.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::strict_json;
use crate::token::Account;

/// Longest ID token that is read, in bytes.
const MAXIMUM_LENGTH: usize = 16 * 1024;
/// Longest name that is shown to people, in characters.
const LONGEST_NAME: usize = 256;
/// Tolerated difference of clocks, in seconds.
const CLOCK_SKEW: i64 = 300;

/// The required values of an ID token.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    /// `aud`: the application.
    pub(super) client_id: &'a str,
    /// `iss`: the issuer of the tenant, with the tenant's id.
    pub(super) issuer: &'a str,
    /// `nonce` of the authorization request. Absent for a refresh.
    pub(super) nonce: Option<&'a str>,
}

/// The reason why an ID token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Entra's ID token does not match this sign-in ({0}); sign in again, and if that does not help, check --tenant, --client-id and --authority"
)]
pub struct IdTokenError(&'static str);

impl IdTokenError {
    /// The ID token is missing.
    pub(super) const ABSENT: Self = Self("it is missing");
}

/// Returns the account of this token, if the token is as expected at this time.
pub(super) fn account(token: &str, expected: Expected<'_>, now: Timestamp) -> Result<Account, IdTokenError> {
    let claims = claims(token).ok_or(IdTokenError("it cannot be read"))?;
    let text = |name| claims.get(name).and_then(Value::as_str);
    let id = |name| text(name).and_then(|id| Uuid::try_parse(id).ok()).map(|id| id.hyphenated().to_string());
    let tenant_id = id("tid").ok_or(IdTokenError("its tid is not an id"))?;
    let object_id = id("oid").ok_or(IdTokenError("its oid is not an id"))?;
    if text("aud") != Some(expected.client_id) {
        return Err(IdTokenError("its aud is another application"));
    }
    if text("iss") != Some(expected.issuer) {
        return Err(IdTokenError("its iss is another issuer"));
    }
    if !expected.issuer.split('/').any(|segment| segment == tenant_id) {
        return Err(IdTokenError("its tid is not that of its issuer"));
    }
    if expected.nonce.is_some_and(|nonce| text("nonce") != Some(nonce)) {
        return Err(IdTokenError("its nonce belongs to another sign-in"));
    }
    let expires = claims.get("exp").and_then(Value::as_i64).ok_or(IdTokenError("it has no exp"))?;
    if expires.saturating_add(CLOCK_SKEW) <= now.as_second() {
        return Err(IdTokenError("it has expired, or this machine's clock is wrong"));
    }
    let name = text("preferred_username").unwrap_or_default();
    let username = name.chars().filter(|character| is_shown(*character)).take(LONGEST_NAME).collect();
    Ok(Account { tenant_id, object_id, username })
}

/// False for characters that change how other characters are shown.
fn is_shown(character: char) -> bool {
    let is_direction = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !character.is_control() && !is_direction
}

fn claims(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    if token.len() > MAXIMUM_LENGTH {
        return None;
    }
    match strict_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?) {
        Ok(Value::Object(claims)) => Some(claims),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TENANT: &str = "8f6b0000-0000-4000-8000-000000000001";
    const CLIENT: &str = "1c2d0000-0000-4000-8000-000000000002";
    const ALICE: &str = "aaaa0000-0000-4000-8000-000000000003";
    const ISSUER: &str = "https://login.example/8f6b0000-0000-4000-8000-000000000001/v2.0";
    const NOW: i64 = 1_700_000_000;

    fn read(change: impl FnOnce(&mut Value)) -> Result<Account, IdTokenError> {
        let mut claims = json!({
            "aud": CLIENT, "iss": ISSUER, "tid": TENANT, "oid": ALICE, "nonce": "n", "exp": NOW + 3600,
            "preferred_username": "alice@contoso.com",
        });
        change(&mut claims);
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let expected = Expected { client_id: CLIENT, issuer: ISSUER, nonce: Some("n") };
        account(&token, expected, Timestamp::from_second(NOW).unwrap())
    }

    #[test]
    fn an_id_token_as_expected_names_the_account() {
        let alice = Account { tenant_id: TENANT.into(), object_id: ALICE.into(), username: "alice@contoso.com".into() };
        assert_eq!(read(|_| ()), Ok(alice));
        assert_eq!(read(|claims| claims["oid"] = json!(ALICE.to_uppercase())).unwrap().object_id, ALICE);
        for (name, shown) in [("a\u{1b}[31m", "a[31m"), ("a\u{202e}b\u{2066}c", "abc")] {
            assert_eq!(read(|claims| claims["preferred_username"] = json!(name)).unwrap().username, shown);
        }
    }

    #[test]
    fn an_id_token_with_any_other_value_is_refused() {
        const OTHER: &str = "ffff0000-0000-4000-8000-000000000009";
        for (claim, value) in [
            ("aud", json!(OTHER)),
            ("aud", json!([CLIENT])),
            ("iss", json!(format!("https://login.example/{OTHER}/v2.0"))),
            ("iss", json!(format!("{ISSUER}/"))),
            ("tid", json!(OTHER)),
            ("tid", json!("contoso.com")),
            ("oid", json!("alice")),
            ("nonce", json!("m")),
            ("exp", json!(NOW - CLOCK_SKEW)),
            ("exp", json!("tomorrow")),
        ] {
            assert!(read(|claims| claims[claim] = value.clone()).is_err(), "{claim} {value}");
            let absent = read(|claims| _ = claims.as_object_mut().unwrap().remove(claim));
            assert!(absent.is_err(), "without {claim}");
        }
    }

    #[test]
    fn a_text_that_is_not_an_id_token_is_refused() {
        let expected = Expected { client_id: CLIENT, issuer: ISSUER, nonce: None };
        let long = format!("e30.{}.c2ln", "A".repeat(MAXIMUM_LENGTH));
        for token in ["", "a.b", "e30.e30", "e30.W10.c2ln", "e30.%%.c2ln", "e30.e30.e30.e30", &long] {
            assert!(account(token, expected, Timestamp::UNIX_EPOCH).is_err(), "{token}");
        }
    }
}
