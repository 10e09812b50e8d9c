//! One case: a valid token, one change to it, and the expected reason of the refusal.

use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::forge::Forge;

/// Categories in which the most trusted validators have negative tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Category {
    Algorithm,
    Signature,
    Audience,
    Issuer,
    Key,
    Lifetime,
    TokenType,
    Form,
    Duplicates,
    Configuration,
    Authorization,
}

impl Category {
    pub(super) const ALL: [Self; 11] = [
        Self::Algorithm,
        Self::Signature,
        Self::Audience,
        Self::Issuer,
        Self::Key,
        Self::Lifetime,
        Self::TokenType,
        Self::Form,
        Self::Duplicates,
        Self::Configuration,
        Self::Authorization,
    ];
}

/// Valid token that a case is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    User,
    Application,
    UserOfVersion1,
    ApplicationOfVersion1,
}

impl Base {
    pub(super) const ALL: [Self; 4] =
        [Self::User, Self::Application, Self::UserOfVersion1, Self::ApplicationOfVersion1];

    pub(super) fn is_version_1(self) -> bool {
        matches!(self, Self::UserOfVersion1 | Self::ApplicationOfVersion1)
    }
}

pub(super) type SignatureChange = Box<dyn Fn(&Forge, Parts<'_>) -> String + Send>;
pub(super) type TextChange = Box<dyn Fn(&str) -> Vec<u8> + Send>;
pub(super) type AuthorizationChange = Box<dyn Fn(&str) -> Vec<String> + Send>;

/// The only change. Everything else stays valid; a change before signing is signed.
pub(super) enum Change {
    /// A claim; `None` removes it.
    Claim(&'static str, Option<Value>),
    /// All the claims.
    Claims(Value),
    /// A member of the header; `None` removes it.
    Header(&'static str, Option<Value>),
    /// Algorithm of the signature, which the header names.
    Algorithm(Option<Value>, Signature),
    /// Valid signature.
    Signature(SignatureChange),
    /// Unpublished key, and members of the header that name it.
    StrangersKey { kid: &'static str, header: Vec<(&'static str, Value)> },
    /// The text of the claims, before it is encoded and signed.
    ClaimsText(TextChange),
    /// The text of the header, before it is encoded and signed.
    HeaderText(TextChange),
    /// The encoded header and claims, before they are signed.
    SignedPart(Box<dyn Fn(&str) -> String + Send>),
    /// The token as a whole.
    Token(Box<dyn Fn(&str) -> String + Send>),
    /// The Authorization headers that it is sent in.
    Authorization(AuthorizationChange),
}

/// Input of a signature.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    /// The encoded header and claims.
    pub(super) signed_part: &'a str,
    /// Valid signature.
    pub(super) signature: &'a str,
}

/// Way to sign a token.
pub(super) enum Signature {
    /// With the published key.
    Rsa(Algorithm),
    /// With this shared secret.
    Hmac(Algorithm, Vec<u8>),
    None,
}

/// See the module's documentation.
pub(super) struct Case {
    pub(super) category: Category,
    pub(super) what: String,
    pub(super) base: Base,
    pub(super) change: Change,
    pub(super) reason: &'static str,
}

impl Case {
    pub(super) fn new(category: Category, what: impl Into<String>, change: Change, reason: &'static str) -> Self {
        Self { category, what: what.into(), base: Base::User, change, reason }
    }

    /// A claim with another value, or without one.
    pub(super) fn claim(category: Category, name: &'static str, value: Option<Value>, reason: &'static str) -> Self {
        let what = match &value {
            Some(value) => format!("{name} = {value}"),
            None => format!("no {name}"),
        };
        Self::new(category, what, Change::Claim(name, value), reason)
    }

    /// A member of the header with another value, or without one.
    pub(super) fn header(category: Category, name: &'static str, value: Option<Value>, reason: &'static str) -> Self {
        let Self { what, .. } = Self::claim(category, name, value.clone(), reason);
        Self::new(category, format!("header: {what}"), Change::Header(name, value), reason)
    }

    pub(super) fn of(self, base: Base) -> Self {
        Self { what: format!("{base:?}: {}", self.what), base, ..self }
    }

    /// Returns the status for the reason.
    pub(super) fn status(&self) -> u16 {
        match self.reason {
            "malformed_authorization" => 400,
            "scope_missing" | "application_without_role" | "client_not_allowed" => 403,
            _ => 401,
        }
    }

    pub(super) fn authorization(&self, forge: &Forge) -> Vec<String> {
        forge.apply(self.base, &self.change)
    }
}
