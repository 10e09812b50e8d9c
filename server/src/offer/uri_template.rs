//! URI templates of resources: literal text, and variables that match a part of one path segment (RFC 6570 level 1).

/// Longest URI that is matched, in bytes.
const MAXIMUM_URI: usize = 2048;

/// True if the URI matches this template. Each variable matches a non-empty part of one path segment.
///
/// A URI that is not in normal form does not match. So a policy with a URI prefix decides about the same resource
/// that is read.
pub(super) fn matches(template: &str, uri: &str) -> bool {
    uri.len() <= MAXIMUM_URI && is_normal(uri) && parts_match(template, uri)
}

fn is_normal(uri: &str) -> bool {
    url::Url::parse(uri).is_ok_and(|parsed| parsed.as_str() == uri)
        && !uri.contains(['%', '\\'])
        && !uri.contains("//.")
        && !uri.split('/').any(|segment| segment == "." || segment == "..")
}

/// Matches in one pass, with all reachable positions of the URI. With backtracking, the author of a template could
/// choose the running time.
fn parts_match(mut template: &str, uri: &str) -> bool {
    let mut reached = vec![false; uri.len() + 1];
    if let Some(begin) = reached.first_mut() {
        *begin = true;
    }
    loop {
        let Some((literal, rest)) = template.split_once('{') else {
            let rest = uri.len().checked_sub(template.len());
            return uri.ends_with(template) && rest.is_some_and(|end| reached.get(end) == Some(&true));
        };
        let Some((_, after)) = rest.split_once('}') else { return false };
        reached = after_variable(&after_literal(&reached, literal, uri), uri);
        template = after;
    }
}

/// Returns the positions after a literal text.
fn after_literal(reached: &[bool], literal: &str, uri: &str) -> Vec<bool> {
    let fits = |start: usize| uri.as_bytes().get(start..).is_some_and(|rest| rest.starts_with(literal.as_bytes()));
    let is_behind = |end: usize| {
        end.checked_sub(literal.len()).is_some_and(|start| reached.get(start) == Some(&true) && fits(start))
    };
    (0..reached.len()).map(is_behind).collect()
}

/// Returns the positions after a variable, which matches one or more characters of a segment.
fn after_variable(reached: &[bool], uri: &str) -> Vec<bool> {
    let mut is_inside = false;
    let behind = uri.bytes().zip(reached).map(|(byte, is_reached)| {
        is_inside = (is_inside || *is_reached) && !matches!(byte, b'/' | b'?' | b'#');
        is_inside
    });
    std::iter::once(false).chain(behind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_matches_a_part_of_one_segment() {
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
    fn a_template_of_many_variables_is_matched_at_once() {
        let (template, uri) = (format!("a:{}!", "{}".repeat(126)), format!("a:{}", "x".repeat(2_000)));
        assert!(!matches(&template, &uri));
        assert!(matches(&template[..template.len() - 1], &uri));
    }

    #[test]
    fn a_uri_that_is_not_in_normal_form_matches_nothing() {
        for uri in
            ["files:///a/../b", "files:///./b", "files:///%62", "files:///%2e%2e", "b", "FILES:///b", "a://b/..\\c"]
        {
            let template = format!("{}{{name}}", uri.rsplit_once('/').map_or("", |(begin, _)| &uri[..begin.len() + 1]));
            assert!(!matches(&template, uri), "{template} {uri}");
        }
    }
}
