//! Errors before a backend is called, in words that a person or a model can act on.

use crate::entra::{SignIn, StsError};
use crate::es256::SigningError;
use crate::token::SessionError;

/// The reason why a backend can be told no identity of the caller.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BackendIdentityError {
    /// An application has nobody to act on behalf of (AADSTS7000114).
    #[error(
        "the backend is called on behalf of the signed-in user, and the caller is an application without one: sign in as a user, or an administrator sets spec.backend.identity to assertion or none"
    )]
    NoUser,
    /// Entra issued no token for the backend on behalf of the user.
    #[error("no access to the backend on behalf of the user, with the scope {scope}. {source}{}", .source.pause())]
    NoToken {
        /// The scope that was asked for.
        scope: String,
        /// Error of Entra.
        source: StsError,
    },
    /// The assertion could not be signed.
    #[error(
        "the caller's identity cannot be signed for the backend ({0}); call again, and if that does not help, an administrator restarts the pod"
    )]
    Signing(#[from] SigningError),
}

impl BackendIdentityError {
    /// The sign-in that would help, if one does. Missing consent is none: clients cannot ask for the scope of a backend, and
    /// an administrator consents to it in Entra.
    pub fn sign_in(&self) -> Option<SignIn> {
        match self {
            Self::NoToken { source, .. } => source.sign_in(),
            Self::NoUser | Self::Signing(_) => None,
        }
    }

    /// True if the store with the user's session does not answer: the same call may be answered soon.
    pub fn is_store_away(&self) -> bool {
        matches!(self, Self::NoToken { source: StsError::Session(SessionError::Unavailable), .. })
    }

    /// All that can be said of it, for nobody but the caller: Entra's own text may name an account.
    pub fn told(&self) -> String {
        let said = match self {
            Self::NoToken { source, .. } => source.their_words(),
            Self::NoUser | Self::Signing(_) => None,
        };
        said.map_or_else(|| self.to_string(), |said| format!("{self} Entra says: {said}"))
    }

    /// Id by which Microsoft's support finds the request to Entra, if that one failed.
    pub fn correlation_id(&self) -> Option<&str> {
        match self {
            Self::NoToken { source, .. } => source.correlation_id(),
            Self::NoUser | Self::Signing(_) => None,
        }
    }
}
