//! Pages for people in the browser: plain HTML without scripts, in the browser's preferred language.
//!
//! Each page is a value whose method `show` makes the response. Pages clean, shorten and escape texts from clients
//! and people. Callers provide the URLs of links: this server's own, Microsoft's, or the redirect URI of an approved
//! client.
//!
//! | Module | Purpose |
//! |---|---|
//! | [`consent`] | asks a person to approve a client |
//! | [`problem`], [`notice`] | report a failed sign-in, or a completed action |
//! | [`connect`], [`guides`] | explain how to connect clients |
//! | [`sessions`] | lists a person's sessions |
//! | [`client`], [`permissions`] | parts of pages: a client, and permissions in words |
//! | [`document`] | headers and frame of every page |
//! | [`language`], [`texts`] | the language of a page, and its texts |
//! | [`chosen_text`] | text from clients and people |

mod chosen_text;
mod client;
mod connect;
mod consent;
#[cfg(test)]
mod contrast_tests;
mod document;
mod guides;
mod language;
mod notice;
mod permissions;
mod problem;
mod sessions;
#[cfg(test)]
mod tests;
mod texts;

pub use client::{ShownClient, Verification};
pub use connect::Connect;
pub use consent::{Consent, Destination};
pub use document::Visit;
pub(crate) use document::{Frame, respond};
pub use language::Language;
pub use notice::Notice;
pub(crate) use notice::NoticeTemplate;
pub use problem::Problem;
pub use sessions::{Sessions, ShownSession};
