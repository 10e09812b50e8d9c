//! Tests of display names of clients.

use crate::oauth::clients::fields::{MAXIMUM_NAME, NAMELESS, shown_name};

#[test]
fn a_name_is_shown_in_one_line_without_invisible_characters() {
    for (text, shown) in [
        ("Visual Studio Code", "Visual Studio Code"),
        ("  Två \t\r\n ord\u{a0}", "Två ord"),
        ("クライアント", "クライアント"),
        ("a\u{202e}b\u{2066}c\u{200f}d", "abcd"),
        ("a\u{0}b\u{7}\u{9b}c\u{feff}\u{200b}", "abc"),
        ("a\u{2028}b\u{2029}c\u{85}d", "a b c d"),
        ("a\u{e000}b\u{3164}c\u{e0041}", "abc"),
        ("<b>\"&'</b>", "<b>\"&'</b>"),
        ("", NAMELESS),
        (" \u{200b}\u{3164} ", NAMELESS),
        ("---", NAMELESS),
    ] {
        assert_eq!(shown_name(text), shown, "{text:?}");
    }
}

#[test]
fn a_long_name_is_cut() {
    assert_eq!(shown_name(&"å".repeat(MAXIMUM_NAME)), "å".repeat(MAXIMUM_NAME));
    assert_eq!(shown_name(&"å".repeat(MAXIMUM_NAME + 1)), "å".repeat(MAXIMUM_NAME));
    assert_eq!(shown_name(&format!("{} b", "a".repeat(MAXIMUM_NAME - 1))), "a".repeat(MAXIMUM_NAME - 1));
}
