//! Pages at the end of a sign-in: plain HTML without scripts.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::oauth::pages::{Frame, Language, NoticeTemplate, respond};

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    status: StatusCode,
    title: &'static str,
    text: String,
}

impl Page {
    /// Returns the page after a successful sign-in.
    pub(super) fn signed_in(username: &str) -> Self {
        let text = format!("{username} is signed in. You can close this page and go back to your MCP client.");
        Self { status: StatusCode::OK, title: "Signed in", text }
    }

    /// Returns the page after a failure with this reason.
    pub(super) fn failed(reason: &str) -> Self {
        let text = format!("{reason} You can close this page.");
        Self { status: StatusCode::BAD_REQUEST, title: "Not signed in", text }
    }

    /// Returns the page for a request that belongs to no open sign-in.
    pub(super) fn stray(status: StatusCode) -> Self {
        let text = "This address was already used, or its sign-in is no longer open. Go back to your MCP client and call the tool again.";
        Self { status, title: "No sign-in here", text: text.to_owned() }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        // The program uses English, even if the browser prefers another language.
        let template = NoticeTemplate { frame: Frame::alone(Language::English, self.title), text: &self.text };
        respond(self.status, Language::English, &template)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn text_of_entra_and_names_are_escaped_on_a_page() {
        for page in [Page::signed_in("<script>alert(1)</script>"), Page::failed("<img src=x onerror=alert(1)>")] {
            let body = page.into_response().into_body().collect().await.unwrap().to_bytes();
            let html = str::from_utf8(&body).unwrap();
            assert!(html.contains("&#60;") && !html.contains("<script") && !html.contains("<img"), "{html}");
        }
    }
}
