//! Pages with one statement: an action is complete, and the page can be closed.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::document::{Frame, Visit, respond};

/// The completed action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An administrator approved the permissions.
    AdministratorApproved,
}

/// A page with one statement.
#[derive(Template)]
#[template(path = "notice.html")]
pub(crate) struct NoticeTemplate<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) text: &'a str,
}

impl Notice {
    /// Returns the page.
    pub fn show(self, visit: &Visit<'_>) -> Response {
        let notices = &visit.language.texts().notice;
        let notice = match self {
            Self::AdministratorApproved => &notices.administrator_approved,
        };
        let template = NoticeTemplate { frame: Frame::of(visit, notice.heading), text: notice.text };
        respond(StatusCode::OK, visit.language, &template)
    }
}
