//! The language of a page: the browser's preferred one among those available (RFC 9110 section 12.5.4, RFC 4647
//! section 3.4).

use axum::http::{HeaderMap, header};

use super::texts::{ENGLISH, SWEDISH, Texts};

/// Most ranges of a header that are read. Browsers send a few.
const MAX_RANGES: usize = 32;

/// A language that pages are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English, the default.
    #[default]
    English,
    /// Swedish.
    Swedish,
}

impl Language {
    /// Every language, the default first.
    pub const ALL: [Self; 2] = [Self::English, Self::Swedish];

    /// Returns the language that matches `Accept-Language` best.
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok());
        let ranges = values.flat_map(|value| value.split(',')).take(MAX_RANGES);
        let mut best = (Self::default(), 0.0);
        for (language, weight) in ranges.filter_map(range) {
            // With equal weights, the first one wins.
            if weight > best.1 {
                best = (language, weight);
            }
        }
        best.0
    }

    /// Returns the language tag (BCP 47).
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Swedish => "sv",
        }
    }

    /// Returns the texts.
    pub(super) fn texts(self) -> &'static Texts {
        match self {
            Self::English => &ENGLISH,
            Self::Swedish => &SWEDISH,
        }
    }
}

/// Parses a range to its language and weight. Returns none for an unavailable language.
fn range(text: &str) -> Option<(Language, f32)> {
    let (tag, parameters) = text.split_once(';').unwrap_or((text, "q=1"));
    let primary = tag.trim().split('-').next()?;
    let fits = |language: &Language| primary.eq_ignore_ascii_case(language.tag());
    let language = if primary == "*" { Language::default() } else { Language::ALL.into_iter().find(fits)? };
    let weight = parameters.trim().strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('=')?.trim().parse().ok()?;
    (0.0..=1.0).contains(&weight).then_some((language, weight))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn chosen(values: &[&str]) -> Language {
        let values = values.iter().map(|value| (header::ACCEPT_LANGUAGE, HeaderValue::from_str(value).unwrap()));
        Language::of(&values.collect())
    }

    #[test]
    fn the_language_with_the_greatest_weight_is_chosen() {
        for values in [
            &["sv"][..],
            &["sv-SE,sv;q=0.9,en-US;q=0.8,en;q=0.7"],
            &["SV-fi"],
            &["fi, sv;q=0.5, en;q=0.4"],
            &["en;q=0.5, sv;q=0.6"],
            &["en;q=0", "sv;q=0.001"],
            &["sv, *;q=0.1"],
            &["sv , en"],
            &["sv; q=0.8, *;q=0.1"],
        ] {
            assert_eq!(chosen(values), Language::Swedish, "{values:?}");
        }
    }

    #[test]
    fn a_request_without_a_known_language_gets_english() {
        for values in [
            &[][..],
            &[""],
            &["*"],
            &["en-GB, sv;q=0.9"],
            &["en, sv"],
            &["fi, de-CH"],
            &["sv;q=0"],
            &["sv;q=2"],
            &["sv;q=NaN"],
            &["sv;q="],
            &["svx"],
            &["*, sv;q=0.9"],
            &[",;,;q=1"],
        ] {
            assert_eq!(chosen(values), Language::English, "{values:?}");
        }
    }

    #[test]
    fn a_long_header_is_read_to_a_bound() {
        let long = format!("{}sv", "fi,".repeat(MAX_RANGES));
        assert_eq!(chosen(&[&long]), Language::English);
    }
}
