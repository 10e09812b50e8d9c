//! A client on a page: its self-chosen name and its verification.

use super::chosen_text::{MAX_NAME, chosen_text};
use super::texts::Texts;

/// A client on a page.
#[derive(Clone, Copy, Debug)]
pub struct ShownClient<'a> {
    /// The name as given. It may be empty, long or misleading.
    pub name: &'a str,
    /// The source of the client's metadata.
    pub verification: Verification<'a>,
}

/// Sources of a client's metadata.
#[derive(Clone, Copy, Debug)]
pub enum Verification<'a> {
    /// The server's team lists it.
    Listed,
    /// A document that this host publishes describes it.
    Published {
        /// Host of the client ID metadata document, in ASCII.
        host: &'a str,
    },
    /// It registered itself. Anybody may use any name.
    Registered,
}

impl ShownClient<'_> {
    /// Returns the name for people, without quotes.
    pub(super) fn name(&self, texts: &Texts) -> String {
        let name = chosen_text(self.name, MAX_NAME);
        if name.is_empty() { texts.client.unnamed.to_owned() } else { name }
    }

    /// Returns a sentence about the verification.
    pub(super) fn known(&self, texts: &Texts) -> String {
        match self.verification {
            Verification::Listed => texts.client.listed.to_owned(),
            Verification::Published { host } => (texts.client.published)(&chosen_text(host, MAX_NAME)),
            Verification::Registered => texts.client.registered.to_owned(),
        }
    }

    /// True if the team of the server does not vouch for the name. Anybody can own a host that publishes a document.
    pub(super) fn is_unverified(&self) -> bool {
        !matches!(self.verification, Verification::Listed)
    }
}
