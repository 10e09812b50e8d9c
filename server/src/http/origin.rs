//! The Host and Origin headers, checked against DNS rebinding.
//!
//! A server with a public URL accepts only that host. A server inside its cluster accepts any name of its Service.
//! Only browsers send `Origin`. If present, it must be the public URL's origin or an allowed one. Forwarded headers
//! are never read.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use mcp_entra_policy::ServerConfiguration;
use url::Url;

use super::Gate;
use super::answer::{self, Refusal};

/// The refusal of a host other than the public URL's.
pub(crate) const FOREIGN_HOST: &str =
    "this host name does not belong to the server; use the URL in the server's status";

/// The hosts and origins that requests may name.
pub struct Accepted {
    host: Host,
    origins: Vec<String>,
}

enum Host {
    Any,
    Only(String),
    /// The public URL has no host.
    None,
}

impl Accepted {
    /// Returns the host and origin of the public URL, and the allowed origins.
    pub fn new(configuration: &ServerConfiguration) -> Self {
        Self::of(configuration.public_url.as_deref(), &configuration.allowed_origins)
    }

    fn of(public_url: Option<&str>, allowed: &[String]) -> Self {
        let url = public_url.and_then(|url| Url::parse(url).ok());
        let host = match (public_url, url.as_ref().and_then(Url::host_str)) {
            (None, _) => Host::Any,
            (Some(_), Some(host)) => Host::Only(host.to_owned()),
            (Some(_), None) => Host::None,
        };
        let own = url.map(|url| url.origin().ascii_serialization());
        Self { host, origins: own.into_iter().chain(allowed.iter().cloned()).collect() }
    }
}

/// Refuses foreign hosts and origins with 403.
pub(super) fn stage(gate: &Gate, headers: &HeaderMap) -> Result<(), Refusal> {
    if !gate.accepted.accepts_host(headers) {
        return Err(Refusal::new("host_not_accepted", answer::problem(StatusCode::FORBIDDEN, FOREIGN_HOST)));
    }
    if !gate.accepted.accepts_origin(headers) {
        let text = "pages of this origin may not call this server; add it to spec.exposure.allowedOrigins, or use a client outside a web page";
        return Err(Refusal::new("origin_not_accepted", answer::problem(StatusCode::FORBIDDEN, text)));
    }
    Ok(())
}

impl Accepted {
    /// True for the host of the public URL, with or without a port, because edges forward either form.
    pub(crate) fn accepts_host(&self, headers: &HeaderMap) -> bool {
        let expected = match &self.host {
            Host::Any => return true,
            Host::Only(expected) => expected,
            Host::None => return false,
        };
        let mut hosts = headers.get_all(header::HOST).iter();
        let authority = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
            _ => None,
        };
        authority.is_some_and(|authority| {
            !authority.as_str().contains('@') && authority.host().eq_ignore_ascii_case(expected)
        })
    }

    fn accepts_origin(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let (origin, second) = (origins.next(), origins.next());
        let Some(origin) = origin else { return true };
        second.is_none() && self.origins.iter().any(|accepted| origin.as_bytes() == accepted.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: Option<&str> = Some("https://graph.mcp.contoso.com/mcp");

    fn accepted(public_url: Option<&str>, headers: &[(&'static str, &'static str)]) -> (bool, bool) {
        accepted_with(public_url, &[], headers)
    }

    fn accepted_with(
        public_url: Option<&str>,
        allowed: &[String],
        headers: &[(&'static str, &'static str)],
    ) -> (bool, bool) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let accepted = Accepted::of(public_url, allowed);
        (accepted.accepts_host(&map), accepted.accepts_origin(&map))
    }

    #[test]
    fn an_allowed_origin_is_accepted_to_the_letter_and_never_beside_another() {
        let allowed = ["http://localhost:6274".to_owned()];
        let origin = |value| accepted_with(PUBLIC, &allowed, &[("origin", value)]).1;
        assert!(origin("http://localhost:6274") && origin("https://graph.mcp.contoso.com"));
        for foreign in ["https://localhost:6274", "http://localhost", "http://localhost:62740", "null", "*"] {
            assert!(!origin(foreign), "{foreign}");
        }
        let two = [("origin", "http://localhost:6274"), ("origin", "https://evil.example")];
        assert!(!accepted_with(PUBLIC, &allowed, &two).1);
    }

    #[test]
    fn only_the_public_host_is_accepted_with_any_port_and_in_any_case() {
        assert!(accepted(PUBLIC, &[("host", "graph.mcp.contoso.com")]).0);
        assert!(accepted(PUBLIC, &[("host", "GRAPH.mcp.contoso.com:8443")]).0);
        for foreign in [
            "evil.example",
            "localhost",
            "graph.mcp.contoso.com.evil.example",
            "graph.mcp.contoso.com@evil.example",
            "",
        ] {
            assert!(!accepted(PUBLIC, &[("host", foreign)]).0, "{foreign}");
        }
        assert!(!accepted(PUBLIC, &[]).0);
        assert!(!accepted(PUBLIC, &[("host", "graph.mcp.contoso.com"), ("host", "evil.example")]).0);
    }

    #[test]
    fn without_a_public_url_any_host_is_accepted_but_no_origin() {
        assert_eq!(accepted(None, &[("host", "graph.productivity.svc:8080")]), (true, true));
        assert_eq!(accepted(None, &[("host", "x"), ("origin", "https://x")]), (true, false));
    }

    #[test]
    fn an_origin_is_the_public_urls_own_to_the_letter() {
        assert!(accepted(PUBLIC, &[]).1);
        assert!(accepted(PUBLIC, &[("origin", "https://graph.mcp.contoso.com")]).1);
        for foreign in
            ["http://graph.mcp.contoso.com", "https://graph.mcp.contoso.com:8443", "https://evil.example", "null"]
        {
            assert!(!accepted(PUBLIC, &[("origin", foreign)]).1, "{foreign}");
        }
    }
}
