//! The consent page: a person approves a client before Microsoft is asked for anything.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::chosen_text::{MAX_NAME, chosen_text};
use super::client::ShownClient;
use super::document::{Frame, Visit, respond};
use super::permissions::{ShownPermission, shown_permission};
use super::texts::Texts;

/// A question for consent. Its form posts `request` and `decision`, which is `approve` or `cancel`; whatever is not
/// exactly `approve` means no.
#[derive(Clone, Copy, Debug)]
pub struct Consent<'a> {
    /// Namespace of the server.
    pub namespace: &'a str,
    /// The client that asks.
    pub client: ShownClient<'a>,
    /// Place that the answer goes to.
    pub destination: Destination<'a>,
    /// Permissions of Microsoft Graph that Microsoft asks for at this sign-in, as `User.Read`.
    pub permissions: &'a [String],
    /// Scopes of the server that this client asks for, besides those of every sign-in, as `mail.write`.
    pub scopes: &'a [String],
    /// The authentication context of Conditional Access that the sign-in is to satisfy, as `c1`.
    pub context: Option<&'a str>,
    /// The address that the form is posted to.
    pub action: &'a str,
    /// The sealed request.
    pub request: &'a str,
    /// The redirect URI that the app registration needs.
    pub callback: &'a str,
}

/// The place that the answer to a client goes to.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// A host of the network, in ASCII, with its port if that is not the scheme's.
    Host(&'a str),
    /// A program on the person's own computer.
    ThisComputer,
    /// The app that links of this scheme open, as `cursor`.
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
    /// The page that asks.
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
