//! Does the request mean this server, and does it come from a page that may ask? Both guard against DNS rebinding.
//!
//! A server with a public URL answers to that host alone; one inside its cluster goes by whatever name the Service has.
//! `Origin` is sent by browsers only: absent it is fine, present it must be the public URL's own, or one that the
//! configuration allows. Forwarded headers are never read.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use url::Url;

use super::{Gate, answer};
use crate::audit::{Outcome, Trail};

/// Refuses foreign hosts and origins with 403.
pub(super) async fn layer(
    State(gate): State<Arc<Gate>>,
    Extension(trail): Extension<Arc<Trail>>,
    request: Request,
    next: Next,
) -> Response {
    let public_url = gate.configuration.public_url.as_deref();
    if !host_accepted(public_url, request.headers()) {
        trail.decided(Outcome::Refused("host_not_accepted"));
        let message = "this host name is not the server's; use the URL in the server's status";
        return answer::problem(StatusCode::FORBIDDEN, message);
    }
    if !origin_accepted(public_url, &gate.configuration.allowed_origins, request.headers()) {
        trail.decided(Outcome::Refused("origin_not_accepted"));
        let message = "pages of this origin may not call this server; add it to spec.exposure.allowedOrigins, or use a client that is no web page";
        return answer::problem(StatusCode::FORBIDDEN, message);
    }
    next.run(request).await
}

/// The host of the public URL, with or without a port: an edge may pass on either.
fn host_accepted(public_url: Option<&str>, headers: &HeaderMap) -> bool {
    let Some(expected) = public_url.and_then(|url| Url::parse(url).ok()) else { return public_url.is_none() };
    let mut hosts = headers.get_all(header::HOST).iter();
    let authority = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        _ => None,
    };
    authority.is_some_and(|authority| {
        !authority.as_str().contains('@')
            && expected.host_str().is_some_and(|host| authority.host().eq_ignore_ascii_case(host))
    })
}

fn origin_accepted(public_url: Option<&str>, allowed: &[String], headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (origin, second) = (origins.next(), origins.next());
    let Some(origin) = origin else { return true };
    let own = public_url.and_then(|url| Url::parse(url).ok()).map(|url| url.origin().ascii_serialization());
    second.is_none() && own.iter().chain(allowed).any(|accepted| origin.as_bytes() == accepted.as_bytes())
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
        (host_accepted(public_url, &map), origin_accepted(public_url, allowed, &map))
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
