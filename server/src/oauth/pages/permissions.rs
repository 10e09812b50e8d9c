//! Descriptions of Microsoft Graph's permissions.

use super::chosen_text::{MAX_NAME, chosen_text};
use super::texts::Texts;

/// A permission on a page.
#[derive(Clone, Debug)]
pub(super) struct ShownPermission {
    /// The name, such as `Mail.Read`.
    pub(super) name: String,
    /// The description, or none for an unknown permission.
    pub(super) words: Option<&'static str>,
}

/// Returns a permission with its description. The name may have any prefix of Graph.
pub(super) fn shown_permission(name: &str, texts: &Texts) -> ShownPermission {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    let words = texts.permissions.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, words)| *words);
    ShownPermission { name: chosen_text(name, MAX_NAME), words }
}
