//! The bearer token, only from the Authorization header (RFC 6750 section 2.1). Tokens in the query string or the
//! body are ignored.

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use secrecy::SecretString;

use super::Gate;
use super::answer::Refusal;

/// The unverified token of a request.
pub(super) struct Bearer(pub(super) SecretString);

/// Removes the token from the request's headers, so that no later stage can forward or log it.
pub(super) fn stage(gate: &Gate, parts: &mut Parts) -> Result<Bearer, Refusal> {
    match token(&parts.headers) {
        Ok(Some(token)) => {
            parts.headers.remove(header::AUTHORIZATION);
            Ok(Bearer(token))
        }
        Ok(None) => Err(Refusal::new("token_missing", gate.challenge.token_missing())),
        Err(description) => Err(Refusal::new("malformed_authorization", gate.challenge.invalid_request(description))),
    }
}

/// Returns the token of a Bearer Authorization header. Other schemes count as no token.
fn token(headers: &HeaderMap) -> Result<Option<SecretString>, &'static str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err("there is more than one Authorization header; send one"),
    };
    let value = value.to_str().map_err(|_| "the Authorization header is not ASCII; send Bearer and the token")?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Ok(None);
    }
    let token = token.trim_matches(' ');
    if token.is_empty() || !token.bytes().all(is_of_token68) {
        return Err("the Authorization header does not hold a token after Bearer; send exactly one");
    }
    Ok(Some(SecretString::from(token)))
}

/// True if a byte may occur in a token (token68 of RFC 9110 section 11.2).
fn is_of_token68(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn read(values: &[&'static str]) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        token(&headers).map(|token| token.map(|token| token.expose_secret().to_owned()))
    }

    #[test]
    fn the_scheme_bearer_is_not_case_sensitive() {
        assert_eq!(read(&["Bearer a.b.c"]), Ok(Some("a.b.c".to_owned())));
        assert_eq!(read(&["bearer  a.b.c"]), Ok(Some("a.b.c".to_owned())));
    }

    #[test]
    fn a_header_with_another_scheme_is_not_a_token() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["Basic YTpi"]), Ok(None));
        assert_eq!(read(&["BearerToken a"]), Ok(None));
    }

    #[test]
    fn a_header_that_cannot_be_one_token_is_a_malformed_request() {
        for values in [&["Bearer"][..], &["Bearer "], &["Bearer a b"], &["Bearer a,b"], &["Bearer a", "Bearer a"]] {
            assert!(read(values).is_err(), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn a_header_of_any_bytes_is_one_token_or_none_or_malformed(
            start in prop_oneof![Just("Bearer "), Just("bearer"), Just("")],
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let Ok(value) = HeaderValue::from_bytes(&[start.as_bytes(), &bytes].concat()) else { return Ok(()) };
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.clone())]);
            if let Ok(Some(read)) = token(&headers) {
                let text = value.to_str().unwrap();
                prop_assert!(text.ends_with(read.expose_secret()) || text.ends_with(' '));
                prop_assert!(!read.expose_secret().contains([' ', ',', '"']) && !read.expose_secret().is_empty());
            }
        }
    }
}
