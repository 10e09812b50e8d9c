//! URI templates of resources, as far as they are offered: literal text and variables that fill one segment of a path
//! (RFC 6570 level 1).

/// Longest URI that is looked at, in bytes.
const MAXIMUM_URI: usize = 2048;

/// Returns whether the URI is one of this template: each variable stands for one segment or a part of it, which is not empty.
///
/// A URI that is not in normal form matches none. So a policy that decides by its beginning means the resource that is read.
pub(super) fn matches(template: &str, uri: &str) -> bool {
    uri.len() <= MAXIMUM_URI && is_normal(uri) && rest_matches(template, uri)
}

fn is_normal(uri: &str) -> bool {
    url::Url::parse(uri).is_ok_and(|parsed| parsed.as_str() == uri)
        && !uri.contains('%')
        && !uri.contains("//.")
        && !uri.split('/').any(|segment| segment == "." || segment == "..")
}

fn rest_matches(template: &str, uri: &str) -> bool {
    let Some((literal, rest)) = template.split_once('{') else { return template == uri };
    let (Some(uri), Some((_, after))) = (uri.strip_prefix(literal), rest.split_once('}')) else { return false };
    let segment = uri.find(['/', '?', '#']).unwrap_or(uri.len());
    let ends = uri.char_indices().map(|(at, letter)| at + letter.len_utf8()).take_while(|end| *end <= segment);
    ends.into_iter().any(|end| uri.get(end..).is_some_and(|uri| rest_matches(after, uri)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_stands_for_a_part_of_one_segment() {
        for (template, uri, expected) in [
            ("users://{id}/profile", "users://7/profile", true),
            ("users://{id}/profile", "users:///profile", false),
            ("users://{id}/profile", "users://7/8/profile", false),
            ("users://{id}/profile", "users://7/profile/x", false),
            ("files:///{name}.{kind}", "files:///a.b.txt", true),
            ("files:///{name}.{kind}", "files:///a", false),
            ("files:///{name}", "files:///a/b", false),
            ("files:///{name}", "files:///a?b", false),
            ("files:///one", "files:///one", true),
            ("files:///{broken", "files:///{broken", false),
        ] {
            assert_eq!(matches(template, uri), expected, "{template} {uri}");
        }
    }

    #[test]
    fn a_uri_that_is_not_in_normal_form_matches_nothing() {
        for uri in ["files:///a/../b", "files:///./b", "files:///%62", "files:///%2e%2e", "b", "FILES:///b"] {
            let template = format!("{}{{name}}", uri.rsplit_once('/').map_or("", |(begin, _)| &uri[..begin.len() + 1]));
            assert!(!matches(&template, uri), "{template} {uri}");
        }
    }
}
