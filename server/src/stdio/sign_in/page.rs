//! The pages that a browser shows at the end of a sign-in: plain HTML without scripts.

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use html_escape::encode_text;

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    status: StatusCode,
    title: &'static str,
    text: String,
}

impl Page {
    /// The person is signed in.
    pub(super) fn signed_in(username: &str) -> Self {
        let text = format!("{username} is signed in. You can close this page and go back to your MCP client.");
        Self { status: StatusCode::OK, title: "Signed in", text }
    }

    /// The sign-in has failed, for this reason.
    pub(super) fn failed(reason: &str) -> Self {
        let text = format!("{reason} You can close this page.");
        Self { status: StatusCode::BAD_REQUEST, title: "Not signed in", text }
    }

    /// A request that belongs to no sign-in that is open.
    pub(super) fn stray(status: StatusCode) -> Self {
        let text = "This address belongs to no sign-in that is open, or was opened before. Go back to your MCP client and call the tool again.";
        Self { status, title: "No sign-in here", text: text.to_owned() }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let (title, text) = (self.title, encode_text(&self.text));
        let page = format!(
            "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
             <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}}\
             @media(prefers-color-scheme:dark){{body{{background:#1b1b1b;color:#eee}}}}</style></head>\
             <body><main><h1>{title}</h1><p>{text}</p></main></body></html>"
        );
        (self.status, HEADERS, Html(page)).into_response()
    }
}

/// Headers of every page: nothing is run, framed, kept or passed on.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn what_entra_or_a_name_says_is_text_on_a_page_and_nothing_else() {
        for page in [Page::signed_in("<script>alert(1)</script>"), Page::failed("<img src=x onerror=alert(1)>")] {
            let body = page.into_response().into_body().collect().await.unwrap().to_bytes();
            let html = str::from_utf8(&body).unwrap();
            assert!(html.contains("&lt;") && !html.contains("<script") && !html.contains("<img"), "{html}");
        }
    }
}
