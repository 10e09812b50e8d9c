//! Bearer challenges in `WWW-Authenticate` (RFC 6750 section 3): parsing and writing.
//!
//! Parsing is lenient: values may be quoted or not, in any order, beside other schemes. Writing escapes values, so
//! that none can leave its quotes or its line.

use std::fmt;

use http::{HeaderMap, HeaderValue, header};

/// A known parameter. All others are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// Error code for programs.
    Error,
    /// Claims request: JSON in base64.
    Claims,
    /// Address of the protected resource metadata (RFC 9728 section 5.1).
    ResourceMetadata,
    /// Scopes to request, separated by spaces.
    Scope,
    /// Explanation for people.
    ErrorDescription,
}

/// Parameters of a challenge, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BearerChallenge(Vec<(Parameter, String)>);

impl Parameter {
    const ALL: [Self; 5] = [Self::Error, Self::Claims, Self::ResourceMetadata, Self::Scope, Self::ErrorDescription];

    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Claims => "claims",
            Self::ResourceMetadata => "resource_metadata",
            Self::Scope => "scope",
            Self::ErrorDescription => "error_description",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|parameter| name.eq_ignore_ascii_case(parameter.name()))
    }
}

impl BearerChallenge {
    /// Reads the parameters of all challenges in these headers.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let parameters = values.flat_map(Parameters);
        Self(parameters.filter_map(|(name, value)| Some((Parameter::named(name)?, value))).collect())
    }

    /// Adds a parameter at the end.
    pub(crate) fn push(&mut self, parameter: Parameter, value: impl Into<String>) {
        self.0.push((parameter, value.into()));
    }

    /// Returns all values of a parameter.
    pub(crate) fn values(&self, parameter: Parameter) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(own, _)| *own == parameter).map(|(_, value)| value.as_str())
    }

    /// Returns the value of the header.
    pub(crate) fn header(&self) -> HeaderValue {
        // Printable ASCII is always a valid header value.
        HeaderValue::try_from(self.to_string()).unwrap_or(HeaderValue::from_static("Bearer"))
    }
}

impl fmt::Display for BearerChallenge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Bearer")?;
        for (place, (parameter, value)) in self.0.iter().enumerate() {
            let separator = if place == 0 { " " } else { ", " };
            write!(formatter, "{separator}{}=\"{}\"", parameter.name(), quotable(value))?;
        }
        Ok(())
    }
}

/// Replaces characters that RFC 6750 section 3 forbids in a description, leaving printable ASCII without quotes and
/// backslashes. Parts of a description can come from a token.
fn quotable(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '"' | '\\' => '\'',
            ' '..='~' => character,
            _ => '?',
        })
        .collect()
}

/// Parameters of all challenges in the rest of a header.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, String);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.0.trim_start_matches(|character: char| character == ',' || character.is_whitespace());
            let end = rest.find(|character: char| matches!(character, '=' | ',') || character.is_whitespace());
            let (name, rest) = rest.split_at_checked(end?)?;
            match rest.trim_start().strip_prefix('=') {
                // A scheme such as Bearer.
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

/// Splits a text after the value at its beginning. A quote without an end extends to the end of the text.
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
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn read(header: &HeaderValue) -> BearerChallenge {
        BearerChallenge::read(&HeaderMap::from_iter([(header::WWW_AUTHENTICATE, header.clone())]))
    }

    #[test]
    fn a_description_stays_inside_its_quotes_and_its_line() {
        assert_eq!(quotable("a \"b\\\r\nX: ü"), "a 'b'??X: ?");
    }

    #[test]
    fn a_challenge_is_written_in_the_order_of_its_parameters() {
        let mut challenge = BearerChallenge::default();
        assert_eq!(challenge.header(), "Bearer");
        challenge.push(Parameter::Error, "invalid_token");
        challenge.push(Parameter::ResourceMetadata, "https://x/.well-known/y");
        challenge.push(Parameter::Scope, "");
        let expected = r#"Bearer error="invalid_token", resource_metadata="https://x/.well-known/y", scope="""#;
        assert_eq!(challenge.header(), expected);
    }

    proptest! {
        #[test]
        fn a_challenge_with_any_values_is_read_as_it_was_written(
            parameters in vec((select(&Parameter::ALL), any::<String>()), 0..6),
        ) {
            let header = BearerChallenge(parameters.clone()).header();
            prop_assert!(header.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)));
            let expected = parameters.into_iter().map(|(parameter, value)| (parameter, quotable(&value))).collect();
            prop_assert_eq!(read(&header), BearerChallenge(expected));
        }

        #[test]
        fn any_header_is_read_and_what_is_read_can_be_written(text in "[ -~\\t]*") {
            let challenge = read(&HeaderValue::try_from(text).unwrap());
            prop_assert_eq!(read(&challenge.header()).0.len(), challenge.0.len());
        }
    }
}
