//! App registration that a token was issued for, as its audience proves it.

/// App registration that a token was issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Client id of the registration, a GUID in lower case.
    Known(String),
    /// The audience does not prove a registration. This never means "another registration".
    Unknown,
}

impl Registration {
    /// Returns the registration that the audience of a verified token proves.
    ///
    /// An audience that is a GUID is the client id. It is the only audience of tokens of version 2, and one of those of
    /// version 1. `api://<GUID>` proves the same. An identifier URI is unique in its tenant, and Entra lets a
    /// registration add this URI only for its own client id. Any registration of the tenant may have any other audience.
    /// That includes the same GUID in other spellings.
    pub fn proven_by(audience: &str) -> Self {
        let id = audience.strip_prefix("api://").unwrap_or(audience);
        if is_guid(id) { Self::Known(id.to_owned()) } else { Self::Unknown }
    }
}

/// Returns whether the value is a GUID in lower case, with hyphens.
pub(crate) fn is_guid(value: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    value.len() == 36
        && value.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => is_digit(byte),
        })
}
