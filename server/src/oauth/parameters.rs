//! Parameters of a request to the authorization server: a query string or a form, with each name at most once.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// Most parameters of a request.
const MAXIMUM_NUMBER: usize = 40;
/// Longest value of a parameter, in bytes. A client id contains the client's registration.
const MAXIMUM_LENGTH: usize = 8 * 1024;

/// Parameters by name. An empty value counts as absent (RFC 6749 section 3.1).
pub(super) struct Parameters(BTreeMap<String, SecretString>);

/// The reason why parameters cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// A name occurs twice.
    #[error("a parameter occurs more than once; send each once")]
    Repeated,
    /// There are too many parameters, or one is too long.
    #[error("there are too many parameters, or one is too long")]
    TooLarge,
}

impl Parameters {
    /// Parses a query string or a form (`application/x-www-form-urlencoded`).
    ///
    /// # Errors
    /// If a name occurs twice, or a limit is exceeded.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            if parameters.len() == MAXIMUM_NUMBER || value.len() > MAXIMUM_LENGTH || name.len() > MAXIMUM_LENGTH {
                return Err(Unreadable::TooLarge);
            }
            if parameters.insert(name.into_owned(), SecretString::from(value.into_owned())).is_some() {
                return Err(Unreadable::Repeated);
            }
        }
        parameters.retain(|_, value| !value.expose_secret().is_empty());
        Ok(Self(parameters))
    }

    /// Returns the value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(ExposeSecret::expose_secret)
    }

    /// Returns the value of a required parameter.
    ///
    /// # Errors
    /// If it is absent.
    pub(super) fn require(&self, name: &'static str) -> Result<&str, Missing> {
        self.get(name).ok_or(Missing(name))
    }
}

/// A required parameter that is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the parameter {0} is missing; send it")]
pub(super) struct Missing(pub &'static str);

impl fmt::Debug for Parameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_is_read_once_and_an_empty_one_is_absent() {
        let parameters = Parameters::parse(b"a=1&b=&c=x%20y+z").unwrap();
        assert_eq!((parameters.get("a"), parameters.get("b"), parameters.get("c")), (Some("1"), None, Some("x y z")));
        assert_eq!(parameters.require("b"), Err(Missing("b")));
        assert_eq!(Parameters::parse(b"a=1&a=2").unwrap_err(), Unreadable::Repeated);
        assert_eq!(Parameters::parse(b"a=&a=2").unwrap_err(), Unreadable::Repeated);
    }

    #[test]
    fn parameters_are_bounded_and_never_displayed() {
        let many: String = (0..=MAXIMUM_NUMBER).map(|number| format!("p{number}=1&")).collect();
        assert_eq!(Parameters::parse(many.as_bytes()).unwrap_err(), Unreadable::TooLarge);
        let long = format!("a={}", "x".repeat(MAXIMUM_LENGTH + 1));
        assert_eq!(Parameters::parse(long.as_bytes()).unwrap_err(), Unreadable::TooLarge);
        assert_eq!(format!("{:?}", Parameters::parse(b"code=secret").unwrap()), r#"{"code"}"#);
    }
}
