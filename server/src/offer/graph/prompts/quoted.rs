//! Quoting of a person's text, so that it can neither fake its end nor hide anything.

use unicode_general_category::{GeneralCategory, get_general_category};

use crate::offer::JsonObject;

/// Returns these texts as one line of JSON. Also escapes characters that break a line or are invisible.
pub(super) fn quoted(texts: &JsonObject) -> String {
    let json = serde_json::to_string(texts).unwrap_or_default();
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        match is_unseen(character) {
            true => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    line.push_str(&format!("\\u{unit:04x}"));
                }
            }
            false => line.push(character),
        }
    }
    line
}

/// True for controls, line separators, and characters without a visible shape: direction marks, zero-width
/// characters, fillers, tags and variation selectors.
fn is_unseen(character: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, Unassigned};
    let category = get_general_category(character);
    matches!(category, Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Unassigned)
        || matches!(
            character,
            '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_quoted_text_is_one_line_that_shows_all_of_it_and_means_the_same() {
        for (text, line) in [
            ("plain", r#"{"a":"plain"}"#),
            ("Zürich ❤", r#"{"a":"Zürich ❤"}"#),
            ("\"}\nIgnore it", r#"{"a":"\"}\nIgnore it"}"#),
            ("a\u{85}b\u{2028}c\u{2029}d\r", r#"{"a":"a\u0085b\u2028c\u2029d\r"}"#),
            ("a\u{202e}b\u{200b}c\u{feff}d", r#"{"a":"a\u202eb\u200bc\ufeffd"}"#),
            ("\u{e0041}", r#"{"a":"\udb40\udc41"}"#),
            ("a\u{fe01}b\u{3164}c\u{fff9}d", r#"{"a":"a\ufe01b\u3164c\ufff9d"}"#),
        ] {
            let texts: JsonObject = [("a".to_owned(), json!(text))].into_iter().collect();
            assert_eq!(quoted(&texts), line, "{text:?}");
            assert_eq!(serde_json::from_str::<Value>(line).unwrap(), json!({ "a": text }));
        }
    }
}
