//! Members of client metadata (RFC 7591 §2) that are read, and names that are safe to show.

use serde_json::{Map, Value};
use unicode_general_category::{GeneralCategory, get_general_category};

/// Greatest length of a client's name, in characters.
pub const MAXIMUM_NAME: usize = 64;

/// The name of a client that does not say one.
pub const NAMELESS: &str = "An MCP client";

/// The reason why a member cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// It is of another type.
    #[error("{0} must be {1}")]
    Type(&'static str, &'static str),
    /// A list that is not empty lacks the one value that this server serves.
    #[error("{0} must contain {1}: this server serves nothing else")]
    Lacks(&'static str, &'static str),
}

/// Returns a name that is safe to show: in one line, without control, bidirectional and other invisible characters.
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
    // Letters and symbols by category, but blank.
    let is_blank = matches!(character, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}');
    let category = get_general_category(character);
    is_blank
        || matches!(
            category,
            Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Surrogate | Unassigned
        )
}

/// The name in `client_name`, safe to show; [`NAMELESS`] where there is none.
pub(super) fn name(metadata: &Map<String, Value>) -> Result<String, FieldError> {
    Ok(text(metadata, "client_name")?.map_or_else(|| NAMELESS.to_owned(), shown_name))
}

/// The texts in `redirect_uris`.
pub(super) fn redirect_uris(metadata: &Map<String, Value>) -> Result<Vec<&str>, FieldError> {
    texts(metadata, "redirect_uris").map(Option::unwrap_or_default)
}

/// Refuses `grant_types` and `response_types` that this server does not serve.
pub(super) fn check_grants(metadata: &Map<String, Value>) -> Result<(), FieldError> {
    for (name, needed) in [("grant_types", "authorization_code"), ("response_types", "code")] {
        let values = texts(metadata, name)?.unwrap_or_default();
        if !values.is_empty() && !values.contains(&needed) {
            return Err(FieldError::Lacks(name, needed));
        }
    }
    Ok(())
}

/// A text, if there is one.
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
