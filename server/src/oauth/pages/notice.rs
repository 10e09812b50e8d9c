//! Pages with one statement: something is done, and the page can be closed.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::document::{Frame, Visit, respond};

/// A statement that something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The person did not approve the client, and it cannot be told so by a redirect.
    Declined,
    /// An administrator approved the permissions.
    AdministratorApproved,
    /// The sessions page is left.
    SignedOut,
}

/// A page with one statement.
#[derive(Template)]
#[template(path = "notice.html")]
pub(crate) struct NoticeTemplate<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) text: &'a str,
}

impl Notice {
    /// Every notice.
    pub const ALL: [Self; 3] = [Self::Declined, Self::AdministratorApproved, Self::SignedOut];

    /// The page that says so.
    pub fn show(self, visit: &Visit<'_>) -> Response {
        let notices = &visit.language.texts().notice;
        let (heading, text) = match self {
            Self::Declined => notices.declined,
            Self::AdministratorApproved => notices.administrator_approved,
            Self::SignedOut => notices.signed_out,
        };
        let template = NoticeTemplate { frame: Frame::of(visit, heading), text };
        respond(StatusCode::OK, visit.language, &template)
    }
}
