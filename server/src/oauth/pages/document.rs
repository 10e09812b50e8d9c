//! Headers and frame of every page. The headers prevent scripts, framing, caching and referrers.

use std::sync::LazyLock;

use askama::Template;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};
use url::Url;

use super::language::Language;
use super::texts::Texts;

/// The style sheet in every page. It must not contain `</style`.
pub(super) const STYLE: &str = include_str!("style.css");

/// The content security policy of every page. It has no `form-action`: Chromium would apply it to the redirects after
/// a form, which lead to Microsoft and the client.
static CONTENT_SECURITY_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"))
});

const HEADERS: [(HeaderName, &str); 5] = [
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::VARY, "Accept-Language"),
];

/// A request for a page.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// Language of the page.
    pub language: Language,
    /// Title of the server.
    pub server: &'a str,
    /// Id of the request, for searches in the logs.
    pub correlation_id: &'a str,
    /// The address that reports a problem to the client: its approved redirect URI with the error.
    pub back: Option<&'a Url>,
}

/// The common part of all pages, for the templates.
#[derive(Clone, Debug)]
pub(crate) struct Frame<'a> {
    pub(super) language: Language,
    /// The server, or none for a person's own program.
    pub(super) server: Option<&'a str>,
    pub(super) heading: String,
    pub(super) style: &'static str,
    pub(super) texts: &'static Texts,
}

impl<'a> Frame<'a> {
    /// Returns the frame of a server's page.
    pub(super) fn of(visit: &Visit<'a>, heading: impl Into<String>) -> Self {
        Self { server: Some(visit.server), ..Self::alone(visit.language, heading) }
    }

    /// Returns the frame of a page without a server.
    pub(crate) fn alone(language: Language, heading: impl Into<String>) -> Self {
        Self { language, server: None, heading: heading.into(), style: STYLE, texts: language.texts() }
    }
}

/// Returns the response with this page.
pub(crate) fn respond(status: StatusCode, language: Language, page: &impl Template) -> Response {
    let Ok(html) = page.render() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let policy = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY.clone()),
        (header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag())),
    ];
    (status, HEADERS, policy, Html(html)).into_response()
}
