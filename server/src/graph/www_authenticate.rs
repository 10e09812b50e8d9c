//! The claims challenge in Graph's `WWW-Authenticate`, read leniently: quoted or not, in any order, beside other schemes.

use http::{HeaderMap, header};

use crate::entra::ClaimsChallenge;

/// The first claims challenge in these headers, if there is one.
pub(super) fn claims_challenge(headers: &HeaderMap) -> Option<ClaimsChallenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(Parameters).find_map(|(name, value)| {
        let named = name.eq_ignore_ascii_case("claims");
        named.then(|| ClaimsChallenge::decode(&value)).flatten()
    })
}

/// The parameters of all challenges in what is left of a header.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, String);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.0.trim_start_matches(|character: char| character == ',' || character.is_whitespace());
            let end = rest.find(|character: char| matches!(character, '=' | ',') || character.is_whitespace());
            let (name, rest) = rest.split_at_checked(end?)?;
            match rest.trim_start().strip_prefix('=') {
                // A scheme, as Bearer.
                None => self.0 = rest,
                Some(rest) => {
                    let (value, rest) = value(rest.trim_start());
                    self.0 = rest;
                    return Some((name, value));
                }
            }
        }
    }
}

/// The value at the beginning of this text, and what follows it. A quote that nobody closes ends with the text.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|character: char| character == ',' || character.is_whitespace());
        let (value, rest) = text.split_at_checked(end.unwrap_or(text.len())).unwrap_or((text, ""));
        return (value.to_owned(), rest);
    };
    let (mut value, mut characters) = (String::new(), quoted.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => value.extend(characters.next()),
            _ => value.push(character),
        }
    }
    (value, characters.as_str())
}

#[cfg(test)]
mod tests {
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
    fn what_is_no_claims_challenge_is_not_taken_for_one() {
        let in_a_text = format!(r#"Bearer error_description="claims={ENCODED}""#);
        for header in
            ["", "Bearer", "Bearer realm=\"\"", "Bearer claims=", "Bearer claims", "Bearer claims=\"e30\"", &in_a_text]
        {
            assert_eq!(read(&[header]), None, "{header}");
        }
        assert_eq!(read(&[]), None);
    }
}
