//! Tests of the contrast of the style sheet's colours (WCAG 2.2).

use std::collections::BTreeMap;

use super::document::STYLE;

/// Relative luminance of `#rrggbb` (WCAG 2.2).
fn luminance(colour: &str) -> f64 {
    let channel = |at: usize| {
        let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
}

fn contrast(one: &str, other: &str) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// Returns the colours of a scheme, by name.
fn colours(scheme: &str) -> BTreeMap<&str, &str> {
    let lines = scheme.lines().filter_map(|line| line.trim().strip_prefix("--")?.strip_suffix(';')?.split_once(": "));
    lines.collect()
}

#[test]
fn text_and_edges_stand_out_in_both_schemes() {
    assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 0.01);
    let (light, rest) = STYLE.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let (light, dark) = (colours(light), colours(rest.split_once("* {").unwrap().0));
    assert!(light.len() > 5 && light.keys().eq(dark.keys()), "{light:?} {dark:?}");
    for colours in [light, dark] {
        for (text, ground) in [
            ("text", "page"),
            ("text", "panel"),
            ("quiet", "page"),
            ("link", "page"),
            ("warning-text", "warning-page"),
            ("on-primary", "primary"),
        ] {
            let contrast = contrast(colours[text], colours[ground]);
            assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2}");
        }
        for edge in ["line", "focus", "primary", "warning-text"] {
            let contrast = contrast(colours[edge], colours["page"]);
            assert!(contrast >= 3.0, "{edge}: {contrast:.2}");
        }
        // The rules must use only colours of the scheme, because only those are compared.
        let (_, rules) = STYLE.split_once("* {").unwrap();
        assert!(!rules.contains('#') && !rules.contains("rgb"), "a colour stands outside of the schemes");
    }
}
