//! Text from a client or a person, made safe for a page: one line, bounded length, no change of the writing
//! direction.

use unicode_general_category::{GeneralCategory, get_general_category};

/// Most characters of a name on a page.
pub(super) const MAX_NAME: usize = 80;
/// Most characters of an address on a page.
pub(super) const MAX_ADDRESS: usize = 300;
/// Most characters of an explanation on a page.
pub(super) const MAX_EXPLANATION: usize = 600;
/// Most combining marks on one letter. Stacks of marks would cover other lines.
const MAX_MARKS: usize = 3;

/// Returns a text without control and format characters, which are invisible or change the direction. An ellipsis
/// replaces everything beyond `length` characters.
pub(super) fn chosen_text(text: &str, length: usize) -> String {
    let mut shown = String::new();
    let (mut count, mut marks, mut is_space_due) = (0, 0, false);
    for character in text.chars() {
        match get_general_category(character) {
            _ if character.is_whitespace() => is_space_due = count > 0,
            GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::PrivateUse
            | GeneralCategory::Surrogate
            | GeneralCategory::Unassigned => {}
            GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark if marks == MAX_MARKS => {}
            category => {
                if count + usize::from(is_space_due) >= length {
                    shown.push('…');
                    break;
                }
                if is_space_due {
                    shown.push(' ');
                    count += 1;
                    is_space_due = false;
                }
                shown.push(character);
                count += 1;
                let is_mark = matches!(category, GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark);
                marks = if is_mark { marks + 1 } else { 0 };
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_name_is_shown_as_it_is() {
        for name in ["Visual Studio Code", "Åsas \"klient\" & co <1>", "مساعد", "日本語", "Cafe\u{301}", "👩 0.1"]
        {
            assert_eq!(chosen_text(name, MAX_NAME), name);
        }
    }

    #[test]
    fn invisible_and_bidirectional_characters_are_removed() {
        let hidden = "a\u{202e}b\u{2066}c\u{200b}d\u{feff}e\u{0}f\u{ad}g\u{e0041}h\u{61c}i\u{e000}j";
        assert_eq!(chosen_text(hidden, MAX_NAME), "abcdefghij");
        assert_eq!(chosen_text(" \u{2028}one\r\n\t two\u{2029}\u{3000}", MAX_NAME), "one two");
        assert_eq!(chosen_text("\u{200b}\u{202e} ", MAX_NAME), "");
    }

    #[test]
    fn a_long_text_ends_in_an_ellipsis_and_one_that_just_fits_does_not() {
        assert_eq!(chosen_text("abcde", 5), "abcde");
        assert_eq!(chosen_text("abcdef", 5), "abcde…");
        assert_eq!(chosen_text("abcd ef", 5), "abcd…");
        assert_eq!(chosen_text("abcde \u{200b}\n", 5), "abcde");
        assert_eq!(chosen_text(&"x".repeat(10_000), MAX_NAME).chars().count(), MAX_NAME + 1);
    }

    #[test]
    fn a_stack_of_marks_is_cut() {
        let stack = format!("a{}b", "\u{301}".repeat(50));
        assert_eq!(chosen_text(&stack, MAX_NAME), "a\u{301}\u{301}\u{301}b");
    }
}
