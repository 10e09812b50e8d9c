//! The page with instructions for connecting clients.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::document::{Frame, Visit, respond};
use super::guides::{Guide, guides};

/// A server for clients to connect to.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    /// Name of the server in clients, such as `mail-reader`: letters, digits and hyphens.
    pub name: &'a str,
    /// The public URL for clients.
    pub url: &'a str,
    /// The address of the sessions page.
    pub sessions: &'a str,
}

#[derive(Template)]
#[template(path = "connect.html")]
struct ConnectTemplate<'a> {
    frame: Frame<'a>,
    guides: Vec<Guide>,
    page: &'a Connect<'a>,
}

impl Connect<'_> {
    /// Returns the page.
    pub fn show(&self, visit: &Visit<'_>) -> Response {
        let texts = visit.language.texts();
        let template = ConnectTemplate {
            frame: Frame::of(visit, (texts.connect.heading)(visit.server)),
            guides: guides(self.name, self.url, &texts.connect),
            page: self,
        };
        respond(StatusCode::OK, visit.language, &template)
    }
}
