//! Tokens of the signed-in account, kept between starts and shared by the processes of one person.

use std::collections::BTreeSet;

use jiff::Timestamp;
use secrecy::SecretString;

/// The place in which tokens are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// An encrypted file, whose key is in the secure store of the operating system.
    #[default]
    Os,
    /// A file that nobody else may read, without encryption.
    File,
    /// Nowhere: tokens end with the process.
    Memory,
}

/// The account that signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `tid`: the tenant, a GUID in lower case.
    pub tenant_id: String,
    /// `oid`: the user in that tenant, a GUID in lower case.
    pub object_id: String,
    /// `preferred_username`: for people, and as a hint for the next sign-in. Never decides anything.
    pub username: String,
}

/// The tokens of an account.
#[derive(Clone, Debug)]
pub struct KeptTokens {
    /// The account.
    pub account: Account,
    /// The refresh token that was issued last.
    pub refresh_token: SecretString,
    /// The access token that was issued last, if any.
    pub access: Option<KeptAccess>,
}

/// An access token for Graph.
#[derive(Clone, Debug)]
pub struct KeptAccess {
    /// The text behind `Authorization: Bearer`.
    pub token: SecretString,
    /// The delegated permissions that it carries, by name in lower case.
    pub granted: BTreeSet<String>,
    /// Time from which it is no longer handed out.
    pub usable_until: Timestamp,
}
