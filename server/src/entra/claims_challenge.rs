//! The claims challenge with which a resource such as Graph asks for a better token.

use http::HeaderMap;

use super::claims::ClaimsChallenge;
use crate::www_authenticate::{BearerChallenge, Parameter};

/// Returns the first claims challenge in these headers, if any.
pub(crate) fn claims_challenge(headers: &HeaderMap) -> Option<ClaimsChallenge> {
    BearerChallenge::read(headers).values(Parameter::Claims).find_map(ClaimsChallenge::decode)
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    const JSON: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1657834417"}}}"#;
    const ENCODED: &str = "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjU3ODM0NDE3In19fQ";

    fn read(values: &[&str]) -> Option<ClaimsChallenge> {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| _ = headers.append(header::WWW_AUTHENTICATE, value.parse().unwrap()));
        claims_challenge(&headers)
    }

    #[test]
    fn a_claims_challenge_is_found_however_it_is_written() {
        let expected = ClaimsChallenge::parse(JSON);
        for header in [
            format!(
                r#"Bearer realm="", authorization_uri="https://x/a,b", error="insufficient_claims", claims="{ENCODED}==""#
            ),
            format!(r#"Bearer claims="{ENCODED}", error="insufficient_claims""#),
            format!("Bearer error=insufficient_claims, claims={ENCODED}=="),
            format!("bearer error=insufficient_claims,Claims = {ENCODED} , realm=x"),
            format!(r#"PoP nonce="a", Bearer realm="", claims="{ENCODED}""#),
            format!(r#"Bearer error_description="claims=\"none\", claims=none", claims="{ENCODED}""#),
            format!(r#"Bearer claims="%%%", claims="{ENCODED}""#),
            format!(r#"Bearer claims="{ENCODED}"#),
        ] {
            assert_eq!(read(&[&header]), expected, "{header}");
            assert_eq!(read(&["Negotiate", &header]), expected, "{header}");
        }
    }

    #[test]
    fn other_headers_are_not_read_as_a_claims_challenge() {
        let in_a_text = format!(r#"Bearer error_description="claims={ENCODED}""#);
        for header in
            ["", "Bearer", "Bearer realm=\"\"", "Bearer claims=", "Bearer claims", "Bearer claims=\"e30\"", &in_a_text]
        {
            assert_eq!(read(&[header]), None, "{header}");
        }
        assert_eq!(read(&[]), None);
    }
}
