//! A client as pages show it: its name, which it chose itself, and what is known of it.

use super::chosen_text::{MAX_NAME, chosen_text};
use super::texts::Texts;

/// A client on a page.
#[derive(Clone, Copy, Debug)]
pub struct ShownClient<'a> {
    /// Its name, as it was given: it may be empty, long or misleading.
    pub name: &'a str,
    /// The way in which it is known.
    pub verification: Verification<'a>,
}

/// Ways by which a client is known.
#[derive(Clone, Copy, Debug)]
pub enum Verification<'a> {
    /// The team of the server lists it.
    Listed,
    /// It is described by a document that this host publishes.
    Published {
        /// Host of the client ID metadata document, in ASCII.
        host: &'a str,
    },
    /// It registered itself: anybody may use any name.
    Registered,
}

impl ShownClient<'_> {
    /// The name for people, without quotes.
    pub(super) fn name(&self, texts: &Texts) -> String {
        let name = chosen_text(self.name, MAX_NAME);
        if name.is_empty() { texts.client.unnamed.to_owned() } else { name }
    }

    /// A sentence about what is known.
    pub(super) fn known(&self, texts: &Texts) -> String {
        match self.verification {
            Verification::Listed => texts.client.listed.to_owned(),
            Verification::Published { host } => (texts.client.published)(&chosen_text(host, MAX_NAME)),
            Verification::Registered => texts.client.registered.to_owned(),
        }
    }

    /// True if nobody whom the person knows vouches for the name: a host that publishes a document may be anybody's.
    pub(super) fn is_unverified(&self) -> bool {
        !matches!(self.verification, Verification::Listed)
    }
}
