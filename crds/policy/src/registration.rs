//! The app registration that a token was issued for, as far as its audience proves it.

/// The app registration that a token was issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Its client id, a GUID in lower case.
    Known(String),
    /// The audience proves none. Never read as "another one".
    Unknown,
}

impl Registration {
    /// The registration that an audience proves, if a verified token has it.
    ///
    /// A GUID is the client id itself: the only audience of version 2, and one of those of version 1. `api://<GUID>`
    /// proves the same: an identifier URI is unique in its tenant, Entra lets a registration add this one for its own
    /// client id alone, and a registration whose tokens carry it holds it. Everything else is a name that any
    /// registration of the tenant may have. That includes the same GUID in other spellings.
    pub fn proven_by(audience: &str) -> Self {
        let id = audience.strip_prefix("api://").unwrap_or(audience);
        if is_guid(id) { Self::Known(id.to_owned()) } else { Self::Unknown }
    }
}

/// Returns whether this is a GUID in lower case, with hyphens.
pub(crate) fn is_guid(value: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    value.len() == 36
        && value.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => is_digit(byte),
        })
}
