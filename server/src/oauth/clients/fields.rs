//! Client metadata (RFC 7591 §2): access to its members, and display names that are safe to show.

use serde_json::{Map, Value};
use unicode_general_category::{GeneralCategory, get_general_category};

/// Longest name of a client, in characters.
pub const MAXIMUM_NAME: usize = 64;

/// The name of a client without one.
pub const NAMELESS: &str = "An MCP client";

/// The reason why a member is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The member has the wrong type.
    #[error("{0} must be {1}")]
    Type(&'static str, &'static str),
    /// A non-empty list lacks the only value that this server supports.
    #[error("{0} must contain {1}: this server supports nothing else")]
    Lacks(&'static str, &'static str),
}

/// Returns a name that is safe to show: on one line, without control, bidirectional or other invisible characters.
pub fn shown_name(text: &str) -> String {
    let visible: String = text
        .chars()
        .map(|character| if character.is_whitespace() { ' ' } else { character })
        .filter(|character| !is_invisible(*character))
        .collect();
    let words: Vec<&str> = visible.split(' ').filter(|word| !word.is_empty()).collect();
    let name: String = words.join(" ").chars().take(MAXIMUM_NAME).collect();
    match name.chars().any(char::is_alphanumeric) {
        true => name.trim_end().to_owned(),
        false => NAMELESS.to_owned(),
    }
}

fn is_invisible(character: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, Surrogate, Unassigned};
    // Blank characters in the categories of letters and symbols.
    let is_blank = matches!(character, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}');
    let category = get_general_category(character);
    is_blank
        || matches!(
            category,
            Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Surrogate | Unassigned
        )
}

/// Returns `client_name` in a form that is safe to show, or [`NAMELESS`].
pub(super) fn name(metadata: &Map<String, Value>) -> Result<String, FieldError> {
    Ok(text(metadata, "client_name")?.map_or_else(|| NAMELESS.to_owned(), shown_name))
}

/// Returns the strings in `redirect_uris`.
pub(super) fn redirect_uris(metadata: &Map<String, Value>) -> Result<Vec<&str>, FieldError> {
    texts(metadata, "redirect_uris").map(Option::unwrap_or_default)
}

/// Refuses unsupported `grant_types` and `response_types`.
pub(super) fn check_grants(metadata: &Map<String, Value>) -> Result<(), FieldError> {
    for (name, needed) in [("grant_types", "authorization_code"), ("response_types", "code")] {
        let values = texts(metadata, name)?.unwrap_or_default();
        if !values.is_empty() && !values.contains(&needed) {
            return Err(FieldError::Lacks(name, needed));
        }
    }
    Ok(())
}

/// Returns a string member, if present.
pub(super) fn text<'a>(metadata: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, FieldError> {
    match metadata.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(FieldError::Type(name, "a string")),
    }
}

fn texts<'a>(metadata: &'a Map<String, Value>, name: &'static str) -> Result<Option<Vec<&'a str>>, FieldError> {
    let wrong = FieldError::Type(name, "an array of strings");
    match metadata.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(values)) => {
            values.iter().map(Value::as_str).collect::<Option<Vec<_>>>().map(Some).ok_or(wrong)
        }
        Some(_) => Err(wrong),
    }
}
