//! Texts from pods, controllers and the API server, made safe for conditions and events. Pure.

use std::fmt;

use serde::Deserialize;

/// The most characters that are kept of a text. A kubelet passes on at most 4,096 bytes of a container's termination
/// message.
const LONGEST_KEPT: usize = 4096;
/// The most characters of a quotation. The whole message then fits into an event's note.
const LONGEST_QUOTE: usize = 600;
/// The most characters of a name or reason.
const LONGEST_WORD: usize = 256;

/// A text from another author. It has no `Display`: a message can only contain it as a quotation or as a word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Foreign(Box<str>);

impl From<String> for Foreign {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&str> for Foreign {
    fn from(text: &str) -> Self {
        let end = text.char_indices().nth(LONGEST_KEPT).map_or(text.len(), |(end, _)| end);
        Self(text.get(..end).unwrap_or_default().into())
    }
}

impl Foreign {
    /// Returns the text itself, for comparison and search only. It must never become part of a message.
    pub(crate) fn raw(&self) -> &str {
        &self.0
    }

    /// Returns the text as a quotation for a message.
    pub(crate) fn quoted(&self) -> Quoted {
        Quoted::of(&self.0)
    }

    /// Returns the text as a name or reason for a message.
    pub(crate) fn word(&self) -> String {
        word(&self.0)
    }
}

/// A quotation: on one line, of bounded length, and between quotation marks that do not occur inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quoted(String);

impl Quoted {
    pub(crate) fn of(text: &str) -> Self {
        Self(bounded(&text.replace(['“', '”'], "\""), LONGEST_QUOTE))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "“{}”", self.0)
    }
}

/// Returns a foreign name or reason in a form that is safe for messages.
pub(crate) fn word(text: &str) -> String {
    bounded(text, LONGEST_WORD)
}

/// Returns a value that is published unchanged, such as an address. Returns none if it is too long or has characters
/// other than visible ASCII.
pub(crate) fn value(text: String, longest: usize) -> Option<String> {
    let is_fit = !text.is_empty() && text.len() <= longest && text.chars().all(|char| char.is_ascii_graphic());
    is_fit.then_some(text)
}

/// Returns the text on one line, cut to a length, without control characters for terminals.
pub(crate) fn bounded(text: &str, longest: usize) -> String {
    let mut line = String::new();
    let mut chars = text.trim().chars().map(|char| if is_harmless(char) { char } else { ' ' });
    line.extend(chars.by_ref().take(longest));
    if chars.next().is_some() {
        line.pop();
        line.push('…');
    }
    line.truncate(line.trim_end().len());
    line
}

/// Returns false for control characters, line ends, invisible characters, and those that change the writing direction.
fn is_harmless(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A text from an attacker.
    pub(crate) fn hostile() -> String {
        format!("\u{1b}[2Jü\u{202e}\r\n”; everything is well\u{0}{}", "x".repeat(40_000))
    }

    /// Panics if a message contains an unsafe character.
    pub(crate) fn assert_harmless(message: &str) {
        assert!(message.chars().all(is_harmless), "{message:?}");
        assert!(message.chars().count() < 2000, "{} characters", message.chars().count());
    }

    #[test]
    fn a_quotation_is_one_bounded_line_between_marks_that_occur_nowhere_inside() {
        let quoted = Foreign::from(hostile()).quoted().to_string();
        assert_harmless(&quoted);
        assert_eq!(quoted.chars().count(), LONGEST_QUOTE + 2);
        assert!(quoted.starts_with('“') && quoted.ends_with("x…”"), "{quoted}");
        assert_eq!(quoted.matches(['“', '”']).count(), 2);
        assert_eq!(Quoted::of(" a\nb ").to_string(), "“a b”");
    }

    #[test]
    fn a_text_is_cut_between_characters_and_only_if_it_is_too_long() {
        assert_eq!(bounded("üüü", 3), "üüü");
        assert_eq!(bounded("üüüü", 3), "üü…");
        assert_eq!(bounded("", 3), "");
        assert_eq!(Foreign::from("ü".repeat(5000)).raw().chars().count(), LONGEST_KEPT);
    }

    #[test]
    fn a_value_is_taken_as_it_is_or_not_at_all() {
        let value = |text: &str| value(text.to_owned(), 8);
        assert_eq!(value("1.2.3").as_deref(), Some("1.2.3"));
        for bad in ["", "1 2", "1\n", "123456789", "ü", "\u{1b}[2J"] {
            assert_eq!(value(bad), None, "{bad:?}");
        }
    }
}
