//! Errors before the call of a backend, with messages for people and models.

use crate::entra::{SignIn, StsError};
use crate::es256::SigningError;
use crate::token::SessionError;

/// The reason why no identity can be sent to the backend.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BackendIdentityError {
    /// An application has no user to act on behalf of (AADSTS7000114).
    #[error(
        "the backend is called on behalf of a signed-in user, but the caller is an application: sign in as a user, or ask an administrator to set spec.backend.identity to assertion or none"
    )]
    NoUser,
    /// Entra issued no token for the backend on behalf of the user.
    #[error("no access to the backend on behalf of the user, with the scope {scope}. {source}{}", .source.pause())]
    NoToken {
        /// The requested scope.
        scope: String,
        /// The error of Entra.
        source: StsError,
    },
    /// The assertion could not be signed.
    #[error(
        "cannot sign the caller's identity for the backend ({0}); call again, and if that does not help, ask an administrator to restart the pod"
    )]
    Signing(#[from] SigningError),
}

impl BackendIdentityError {
    /// Returns the sign-in that would help, if any. It does not help if consent is missing: clients cannot request a
    /// backend's scope, and an administrator gives consent in Entra.
    pub fn sign_in(&self) -> Option<SignIn> {
        match self {
            Self::NoToken { source, .. } => source.sign_in(),
            Self::NoUser | Self::Signing(_) => None,
        }
    }

    /// Returns true if the session store does not answer. The same call may succeed soon.
    pub fn is_store_away(&self) -> bool {
        matches!(self, Self::NoToken { source: StsError::Session(SessionError::Unavailable), .. })
    }

    /// Returns the complete text, for the caller only: Entra's own text may name an account.
    pub fn told(&self) -> String {
        let said = match self {
            Self::NoToken { source, .. } => source.their_words(),
            Self::NoUser | Self::Signing(_) => None,
        };
        said.map_or_else(|| self.to_string(), |said| format!("{self} Entra says: {said}"))
    }

    /// Returns the correlation id of a failed request to Entra, for Microsoft's support.
    pub fn correlation_id(&self) -> Option<&str> {
        match self {
            Self::NoToken { source, .. } => source.correlation_id(),
            Self::NoUser | Self::Signing(_) => None,
        }
    }
}
