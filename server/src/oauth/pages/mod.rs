//! Pages that people see in the browser: plain HTML without scripts, in the language that the browser asks for.
//!
//! Each page is a value with `show`, which makes the response. Text that a client or a person chose is cleaned, bounded and
//! escaped here; a URL to follow is given by the caller. It is this server's own,
//! Microsoft's, or the redirect URI of a client that a person has approved.
//!
//! | Module | Purpose |
//! |---|---|
//! | [`consent`] | asks a person to approve a client |
//! | [`problem`], [`notice`] | say that a sign-in has failed, and that something is done |
//! | [`connect`], [`guides`] | say how clients are connected |
//! | [`sessions`] | lists a person's sessions |
//! | [`client`], [`permissions`] | parts of pages: a client, and permissions in words |
//! | [`document`] | headers and frame of every page |
//! | [`language`], [`texts`] | the language of a page, and its texts |
//! | [`chosen_text`] | text that others chose |

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
