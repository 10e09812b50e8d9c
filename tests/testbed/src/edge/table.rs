//! Routing table of the edge: rules of Ingresses and HTTPRoutes, the most specific first.

use std::cmp::Reverse;
use std::time::Duration;

use crate::forward::Target;

/// Served rules in order of precedence.
#[derive(Default)]
pub(super) struct Table {
    rules: Vec<Rule>,
}

pub(super) struct Rule {
    pub(super) host: Host,
    pub(super) path: Path,
    pub(super) backend: Backend,
}

/// Target of a rule.
#[derive(Debug)]
pub(super) struct Backend {
    /// `Ingress namespace/name`, for errors.
    pub(super) route: String,
    /// `namespace/name:port` of the Service; `None` if the rule has no target.
    pub(super) service: Option<String>,
    /// Only ready endpoints.
    pub(super) targets: Vec<Target>,
    /// Limit from the request to the end of the answer.
    pub(super) limit: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Exact(String),
    /// Subdomains of this domain with one more label, as in the `*.example.com` of an Ingress.
    Wildcard(String),
    /// Subdomains of this domain with any number of labels, as in the `*.example.com` of Gateway API.
    Suffix(String),
    Any,
}

impl Host {
    pub(super) fn of_ingress(host: Option<&str>) -> Self {
        match host.map(str::to_ascii_lowercase) {
            None => Self::Any,
            Some(host) => match host.strip_prefix("*.") {
                Some(domain) => Self::Wildcard(domain.to_owned()),
                None => Self::Exact(host),
            },
        }
    }

    pub(super) fn of_gateway(host: Option<&str>) -> Self {
        match Self::of_ingress(host) {
            Self::Wildcard(domain) => Self::Suffix(domain),
            other => other,
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == host,
            Self::Wildcard(domain) => host.split_once('.').is_some_and(|(_, parent)| parent == domain),
            Self::Suffix(domain) => host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.')),
            Self::Any => true,
        }
    }

    /// Order of precedence: exact, then the longest domain, then any.
    fn rank(&self) -> (u8, Reverse<usize>) {
        match self {
            Self::Exact(_) => (0, Reverse(0)),
            Self::Wildcard(domain) | Self::Suffix(domain) => (1, Reverse(domain.len())),
            Self::Any => (2, Reverse(0)),
        }
    }

    /// Returns the intersection of both, as Gateway API defines it for the hostnames of a listener and a route.
    pub(super) fn intersection(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, host) | (host, Self::Any) => Some(host.clone()),
            (Self::Exact(host), pattern) | (pattern, Self::Exact(host)) => {
                pattern.matches(host).then(|| Self::Exact(host.clone()))
            }
            (Self::Wildcard(one) | Self::Suffix(one), Self::Wildcard(two) | Self::Suffix(two)) => {
                let (longer, shorter) = if one.len() >= two.len() { (one, two) } else { (two, one) };
                let within = longer == shorter || Self::Suffix(shorter.clone()).matches(longer);
                within.then(|| Self::Suffix(longer.clone()))
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Path {
    /// Prefix without its trailing slash: `/` is empty.
    path: String,
    exact: bool,
}

impl Path {
    pub(super) fn new(path: &str, exact: bool) -> Self {
        let path = if exact { path } else { path.trim_end_matches('/') };
        Self { path: path.to_owned(), exact }
    }

    /// A prefix matches whole path segments: `/a` matches `/a/b`, not `/ab`.
    fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(&self.path) {
            Some("") => true,
            Some(rest) => !self.exact && rest.starts_with('/'),
            None => false,
        }
    }
}

impl Table {
    /// The first of two equal rules wins.
    pub(super) fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| (rule.host.rank(), Reverse(rule.path.path.len()), !rule.path.exact));
        Self { rules }
    }

    /// Returns the backend for a host (lower case, without port) and path: the longest path of the most specific host.
    pub(super) fn route(&self, host: &str, path: &str) -> Option<&Backend> {
        let found = self.rules.iter().find(|rule| rule.host.matches(host) && rule.path.matches(path));
        found.map(|rule| &rule.backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(host: &str) -> Host {
        Host::of_gateway(Some(host))
    }

    #[test]
    fn hostnames_of_a_listener_and_a_route_intersect() {
        for (one, two, both) in [
            ("a.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "A.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "*.example.com", Some("*.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "a.badexample.com", None),
            ("*.example.com", "*.badexample.com", None),
            ("a.example.com", "b.example.com", None),
        ] {
            for (one, two) in [(one, two), (two, one)] {
                assert_eq!(gateway(one).intersection(&gateway(two)), both.map(gateway), "{one} and {two}");
            }
            assert_eq!(Host::Any.intersection(&gateway(one)), Some(gateway(one)));
        }
    }

    #[test]
    fn the_longer_wildcard_wins_over_the_shorter() {
        let rule = |host: &str| Rule {
            host: gateway(host),
            path: Path::new("/", false),
            backend: Backend { route: host.to_owned(), service: None, targets: Vec::new(), limit: None },
        };
        let table = Table::new(vec![rule("*.com"), rule("*.example.com"), rule("a.example.com")]);
        let of = |host| table.route(host, "/x").map(|backend| backend.route.as_str());
        assert_eq!(of("a.example.com"), Some("a.example.com"));
        assert_eq!(of("b.c.example.com"), Some("*.example.com"));
        assert_eq!(of("example.com"), Some("*.com"));
        assert_eq!(of("com"), None);
    }
}
