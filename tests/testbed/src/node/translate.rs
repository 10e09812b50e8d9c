//! Rewrites the strings of a container for a process that shares the machine's file system and network. Mount paths
//! become folders of the node, and "all interfaces" becomes the pod's own address.

use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Replacements in one container's strings. Each string is rewritten once, from left to right, so that replacements are
/// never rewritten again.
#[derive(Debug)]
pub(super) struct Translation {
    /// Mount path without a trailing slash, and the folder or file behind it. The longest path is first.
    mounts: Vec<(String, String)>,
    address: Ipv4Addr,
}

impl Translation {
    pub(super) fn new(mounts: impl IntoIterator<Item = (String, PathBuf)>, address: Ipv4Addr) -> Self {
        let mut mounts: Vec<_> = mounts
            .into_iter()
            .map(|(path, folder)| {
                let path = path.trim_end_matches('/').to_owned();
                (path, folder.to_string_lossy().into_owned())
            })
            .filter(|(path, _)| !path.is_empty())
            .collect();
        mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Self { mounts, address }
    }

    pub(super) fn apply(&self, text: &str) -> String {
        let mut translated = String::with_capacity(text.len());
        let mut position = 0;
        while let Some((before, rest)) = text.split_at_checked(position) {
            let Some(next) = rest.chars().next() else {
                break;
            };
            if let Some((length, replacement)) = self.found(before, rest) {
                translated.push_str(&replacement);
                position += length;
            } else {
                translated.push(next);
                position += next.len_utf8();
            }
        }
        translated
    }

    /// Returns the length and the replacement of the start of `rest`, if it must be replaced.
    fn found(&self, before: &str, rest: &str) -> Option<(usize, String)> {
        if starts_address(before, rest) {
            return Some(("0.0.0.0".len(), self.address.to_string()));
        }
        if rest.starts_with("[::]") {
            return Some(("[::]".len(), self.address.to_string()));
        }
        if !rest.starts_with('/') || !may_start_path(before) {
            return None;
        }
        self.mounts
            .iter()
            .find(|(path, _)| {
                rest.strip_prefix(path.as_str()).is_some_and(|after| !after.starts_with(is_path_character))
            })
            .map(|(path, folder)| (path.len(), folder.clone()))
    }
}

/// Returns whether `0.0.0.0` is an address here: neither the end of `10.0.0.0` nor the network `0.0.0.0/0`.
fn starts_address(before: &str, rest: &str) -> bool {
    let Some(after) = rest.strip_prefix("0.0.0.0") else {
        return false;
    };
    let digit = |character: char| character.is_ascii_digit();
    let is_network = after.strip_prefix('/').is_some_and(|after| after.starts_with(digit));
    !before.ends_with(|character: char| digit(character) || character == '.')
        && !after.starts_with(|character: char| digit(character) || character == '.')
        && !is_network
}

/// Returns whether an absolute path starts here: not in the middle of another path, except after a URL's scheme.
fn may_start_path(before: &str) -> bool {
    before.ends_with("://") || !before.ends_with(|character: char| is_path_character(character) || character == '/')
}

fn is_path_character(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '.' | '_' | '-')
}

/// Expands Kubernetes' `$(NAME)` to the variable's value. `$$` is a `$`; unknown names stay as they are.
pub(super) fn expand<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = after;
        if let Some(escaped) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = escaped;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|reference| reference.split_once(')')) {
            match value(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(text: &str) -> String {
        Translation::new(
            [
                ("/etc/app".to_owned(), PathBuf::from("/node/config")),
                ("/etc/app/tls/".to_owned(), PathBuf::from("/node/tls")),
                ("/node".to_owned(), PathBuf::from("/elsewhere")),
            ],
            Ipv4Addr::new(127, 244, 3, 7),
        )
        .apply(text)
    }

    #[test]
    fn a_mount_path_becomes_the_nodes_folder_wherever_a_path_may_start() {
        assert_eq!(translate("/etc/app"), "/node/config");
        assert_eq!(translate("--file=/etc/app/a.yaml"), "--file=/node/config/a.yaml");
        assert_eq!(translate("/etc/app/a:/etc/app/b"), "/node/config/a:/node/config/b");
        assert_eq!(translate("file:///etc/app/a"), "file:///node/config/a");
        assert_eq!(translate("cat '/etc/app'; ls"), "cat '/node/config'; ls");
    }

    #[test]
    fn the_longest_mount_path_wins() {
        assert_eq!(translate("/etc/app/tls/key"), "/node/tls/key");
    }

    #[test]
    fn a_path_that_only_looks_like_a_mount_path_stays() {
        for text in ["/etc/apps", "/etc/app-2/x", "/etc/app.d", "/usr/etc/app", "a/etc/app", "/etc"] {
            assert_eq!(translate(text), text);
        }
    }

    #[test]
    fn all_interfaces_become_the_pods_address() {
        assert_eq!(translate("0.0.0.0"), "127.244.3.7");
        assert_eq!(translate("--listen=0.0.0.0:8080"), "--listen=127.244.3.7:8080");
        assert_eq!(translate("http://0.0.0.0:80/x"), "http://127.244.3.7:80/x");
        assert_eq!(translate("[::]:8080"), "127.244.3.7:8080");
    }

    #[test]
    fn other_addresses_and_networks_stay() {
        for text in ["10.0.0.0", "0.0.0.0/0", "0.0.0.01", "1.0.0.0.0", "127.0.0.1:80", "::1", "0.0.0"] {
            assert_eq!(translate(text), text);
        }
    }

    #[test]
    fn variables_expand_as_kubernetes_expands_them() {
        let value = |name: &str| match name {
            "A" => Some("one"),
            "B" => Some("$(A)"),
            _ => None,
        };
        for (text, expected) in [
            ("$(A)", "one"),
            ("x$(A)y$(A)", "xoneyone"),
            ("$(B)", "$(A)"),
            ("$(NONE)", "$(NONE)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$one"),
            ("$A $ $(A", "$A $ $(A"),
            ("cost: 5$", "cost: 5$"),
        ] {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }
}
