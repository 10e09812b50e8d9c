//! The sessions page: a person sees which clients act for them, and ends unwanted sessions.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;

use super::chosen_text::{MAX_NAME, chosen_text};
use super::client::ShownClient;
use super::document::{Frame, Visit, respond};
use super::texts::Texts;

/// A person's sessions. Each form posts `csrf`, and either `session` (a handle) or `all` (`true`).
#[derive(Clone, Copy, Debug)]
pub struct Sessions<'a> {
    /// The account's name, such as `alice@contoso.com`.
    pub signed_in_as: &'a str,
    /// The sessions, in display order.
    pub sessions: &'a [ShownSession<'a>],
    /// The address of the forms.
    pub action: &'a str,
    /// The address of the page with connection instructions.
    pub connect: &'a str,
    /// The value that must match the browser's cookie.
    pub csrf: &'a str,
    /// Number of sessions that the last form ended, on the page after it.
    pub ended: Option<usize>,
}

/// A session on the page.
#[derive(Clone, Copy, Debug)]
pub struct ShownSession<'a> {
    /// The id of the session in the form. It is not secret.
    pub handle: &'a str,
    /// The client of the session.
    pub client: ShownClient<'a>,
    /// Time of the sign-in.
    pub since: Timestamp,
    /// Time of the last refresh, or else of the sign-in.
    pub last_used: Timestamp,
}

struct Row<'a> {
    handle: &'a str,
    client: String,
    known: String,
    since: Time,
    last_used: Time,
}

/// A time for programs and people.
struct Time {
    machine: String,
    person: String,
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsTemplate<'a> {
    frame: Frame<'a>,
    signed_in_as: String,
    ended: Option<String>,
    rows: Vec<Row<'a>>,
    page: &'a Sessions<'a>,
}

impl Sessions<'_> {
    /// Returns the page.
    pub fn show(&self, visit: &Visit<'_>) -> Response {
        let texts = visit.language.texts();
        let template = SessionsTemplate {
            frame: Frame::of(visit, (texts.sessions.heading)(visit.server)),
            signed_in_as: chosen_text(self.signed_in_as, MAX_NAME),
            ended: self.ended.map(texts.sessions.ended),
            rows: self.sessions.iter().map(|session| Row::of(session, texts)).collect(),
            page: self,
        };
        respond(StatusCode::OK, visit.language, &template)
    }
}

impl<'a> Row<'a> {
    fn of(session: &ShownSession<'a>, texts: &Texts) -> Self {
        Self {
            handle: session.handle,
            client: session.client.name(texts),
            known: session.client.known(texts),
            since: Time::of(session.since),
            last_used: Time::of(session.last_used),
        }
    }
}

impl Time {
    fn of(timestamp: Timestamp) -> Self {
        let person = timestamp.strftime("%Y-%m-%d %H:%M UTC").to_string();
        Self { machine: timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), person }
    }
}
