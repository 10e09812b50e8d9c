//! The subject of a question to Graph: the caller, or one user by id.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

/// Characters of a user's id that are percent-encoded in a path.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');
/// Characters besides letters and digits that Entra allows before the `@`.
const PUNCTUATION: &[u8] = b"'.-_!#^~&+";
/// Longest user principal name.
const LONGEST: usize = 113;

/// The user that a question concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The signed-in user. It does not exist if an application calls Graph for itself.
    Me,
    /// The user with this id.
    User(UserId),
}

/// An object id or a user principal name, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserId(String);

impl UserId {
    /// Parses an object id or a user principal name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_name = || {
            let (name, domain) = text.split_once('@')?;
            let legal = |byte: &u8| byte.is_ascii_alphanumeric() || PUNCTUATION.contains(byte);
            let domain_legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
            let is = |part: &str, legal: &dyn Fn(&u8) -> bool| !part.is_empty() && part.as_bytes().iter().all(legal);
            (text.len() <= LONGEST && is(name, &legal) && is(domain, &domain_legal)).then_some(())
        };
        let is_id = || Uuid::try_parse(text).is_ok_and(|id| id.hyphenated().to_string().eq_ignore_ascii_case(text));
        (is_id() || is_name().is_some()).then(|| Self(text.to_ascii_lowercase()))
    }

    /// Returns the id.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// True if it is a user principal name.
    pub(super) fn is_name(&self) -> bool {
        self.0.contains('@')
    }
}

impl Subject {
    /// Returns the beginning of a path: `me`, or `users/` with the id as one segment.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Me => "me".to_owned(),
            Self::User(UserId(id)) => format!("users/{}", utf8_percent_encode(id, ENCODED)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_or_a_user_principal_name_is_one_segment_of_the_path() {
        for (id, path) in [
            ("11111111-1111-4111-8111-11111111111A", "users/11111111-1111-4111-8111-11111111111a"),
            ("Alice@Contoso.com", "users/alice@contoso.com"),
            ("o'neil@contoso.com", "users/o%27neil@contoso.com"),
            (
                "alice_fabrikam.com#EXT#@contoso.onmicrosoft.com",
                "users/alice_fabrikam.com%23ext%23@contoso.onmicrosoft.com",
            ),
            ("a+b&c@contoso.com", "users/a%2Bb%26c@contoso.com"),
        ] {
            assert_eq!(Subject::User(UserId::parse(id).unwrap()).path(), path);
        }
        assert_eq!(Subject::Me.path(), "me");
    }

    #[test]
    fn a_text_that_could_be_another_path_is_not_an_id() {
        let long = format!("{}@contoso.com", "a".repeat(LONGEST));
        for text in [
            "",
            "me",
            ".",
            "..",
            "alice",
            "@contoso.com",
            "alice@",
            "alice@a@b",
            "alice/messages@contoso.com",
            "alice@contoso.com/messages",
            "alice@contoso.com?$select=id",
            "alice%2f@contoso.com",
            "alice\\@contoso.com",
            "alice@contoso.com ",
            "al ice@contoso.com",
            "älice@contoso.com",
            "alice@contoso.com\n",
            "11111111111141118111111111111111",
            "{11111111-1111-4111-8111-111111111111}",
            "$alice@contoso.com",
            &long,
        ] {
            assert_eq!(UserId::parse(text), None, "{text:?}");
        }
    }
}
