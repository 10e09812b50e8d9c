//! Permissions of Microsoft Graph in words.

use super::chosen_text::{MAX_NAME, chosen_text};
use super::texts::Texts;

/// A permission on a page.
#[derive(Clone, Debug)]
pub(super) struct ShownPermission {
    /// Its name, as `Mail.Read`.
    pub(super) name: String,
    /// Words for it, or none for a permission that this program has none for.
    pub(super) words: Option<&'static str>,
}

/// A permission with its words, whatever prefix of Graph its name has.
pub(super) fn shown_permission(name: &str, texts: &Texts) -> ShownPermission {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    let words = texts.permissions.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, words)| *words);
    ShownPermission { name: chosen_text(name, MAX_NAME), words }
}
