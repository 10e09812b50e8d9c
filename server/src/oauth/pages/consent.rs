//! The consent page: a person approves a client before Microsoft is involved.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::chosen_text::{MAX_NAME, chosen_text};
use super::client::ShownClient;
use super::document::{Frame, Visit, respond};
use super::permissions::{ShownPermission, shown_permission};
use super::texts::Texts;

/// A consent question. Its form posts `request` and `decision`, which is `approve` or `cancel`. Everything except
/// `approve` means no.
#[derive(Clone, Copy, Debug)]
pub struct Consent<'a> {
    /// Namespace of the server.
    pub namespace: &'a str,
    /// The client that asks.
    pub client: ShownClient<'a>,
    /// Destination of the answer.
    pub destination: Destination<'a>,
    /// Permissions of Microsoft Graph that Microsoft asks for at this sign-in, such as `User.Read`.
    pub permissions: &'a [String],
    /// Scopes of the server that this client requests, besides those of every sign-in, such as `mail.write`.
    pub scopes: &'a [String],
    /// The authentication context of Conditional Access that the sign-in must satisfy, such as `c1`.
    pub context: Option<&'a str>,
    /// The address of the form.
    pub action: &'a str,
    /// The sealed request.
    pub request: &'a str,
    /// The redirect URI that the app registration needs.
    pub callback: &'a str,
}

/// The destination of the answer to a client.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// A network host in ASCII, with its port if it is not the default.
    Host(&'a str),
    /// A program on the person's own computer.
    ThisComputer,
    /// The app that opens links with this scheme, such as `cursor`.
    App(&'a str),
}

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentTemplate<'a> {
    frame: Frame<'a>,
    client: String,
    known: String,
    is_unverified: bool,
    destination: String,
    uses: String,
    permissions: Vec<ShownPermission>,
    scopes: Vec<String>,
    context: Option<String>,
    page: &'a Consent<'a>,
}

impl Consent<'_> {
    /// Returns the page.
    pub fn show(&self, visit: &Visit<'_>) -> Response {
        let texts = visit.language.texts();
        let template = ConsentTemplate {
            frame: Frame::of(visit, (texts.consent.heading)(visit.server)),
            client: self.client.name(texts),
            known: self.client.known(texts),
            is_unverified: self.client.is_unverified(),
            destination: self.destination.words(texts),
            uses: (texts.consent.uses)(visit.server, self.namespace),
            permissions: self.permissions.iter().map(|name| shown_permission(name, texts)).collect(),
            scopes: self.scopes.iter().map(|scope| chosen_text(scope, MAX_NAME)).collect(),
            context: self.context.map(|context| (texts.consent.context)(&chosen_text(context, MAX_NAME))),
            page: self,
        };
        respond(StatusCode::OK, visit.language, &template)
    }
}

impl Destination<'_> {
    fn words(&self, texts: &Texts) -> String {
        match self {
            Self::Host(host) => chosen_text(host, MAX_NAME),
            Self::ThisComputer => texts.consent.this_computer.to_owned(),
            Self::App(scheme) => (texts.consent.app)(&chosen_text(scheme, MAX_NAME)),
        }
    }
}
