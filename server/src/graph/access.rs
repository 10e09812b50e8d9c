//! Identities and tokens for requests to Graph: as a user or as the application.

use std::sync::Arc;

use async_trait::async_trait;

use super::error::GraphError;
use crate::entra::{ApplicationCredential, ClaimsChallenge, GraphToken, OnBehalfOf, Sts, StsError};

/// The identity for a request to Graph.
pub(super) enum Access {
    /// As a user.
    OnBehalfOf {
        /// Token endpoint.
        sts: Arc<Sts>,
        /// The user.
        user: OnBehalfOf,
    },
    /// As the application itself.
    Application(Arc<ApplicationCredential>),
    /// As the person who runs this program.
    Own {
        /// Source of their tokens.
        tokens: Arc<dyn OwnTokens>,
        /// The delegated permissions that the question needs, for messages.
        permissions: String,
    },
}

/// Source of Graph tokens of the person who runs this program.
#[async_trait]
pub trait OwnTokens: Send + Sync {
    /// Returns a token, from the cache if possible.
    ///
    /// # Errors
    /// [`StsError::SignInNeeded`] if a sign-in is necessary.
    async fn token(&self) -> Result<Arc<GraphToken>, StsError>;

    /// Returns another token in place of one that Graph rejected. It satisfies Graph's challenge.
    ///
    /// # Errors
    /// Same as [`OwnTokens::token`].
    async fn instead_of(
        &self,
        rejected: &Arc<GraphToken>,
        challenge: Option<&ClaimsChallenge>,
    ) -> Result<Arc<GraphToken>, StsError>;
}

impl Access {
    pub(super) async fn token(&self) -> Result<Arc<GraphToken>, GraphError> {
        match self {
            Self::OnBehalfOf { sts, user } => sts.on_behalf_of(user).await.map_err(|source| no_token(user, source)),
            Self::Application(application) => application.token().await.map_err(no_application_token),
            Self::Own { tokens, permissions } => {
                tokens.token().await.map_err(|source| no_own_token(permissions, source))
            }
        }
    }

    /// Returns another token in place of one that Graph rejected. A challenge to an application cannot be answered,
    /// because an application does not declare that capability.
    pub(super) async fn instead_of(
        &self,
        rejected: &Arc<GraphToken>,
        challenge: Option<&ClaimsChallenge>,
    ) -> Result<Arc<GraphToken>, GraphError> {
        match self {
            Self::OnBehalfOf { sts, user } => {
                let token = sts.instead_of(rejected, challenge, user).await;
                token.map_err(|source| no_token(user, source))
            }
            Self::Application(application) => application.instead_of(rejected).await.map_err(no_application_token),
            Self::Own { tokens, permissions } => {
                let token = tokens.instead_of(rejected, challenge).await;
                token.map_err(|source| no_own_token(permissions, source))
            }
        }
    }
}

fn no_token(user: &OnBehalfOf, source: StsError) -> GraphError {
    GraphError::NoToken { permissions: user.permissions(), source }
}

fn no_own_token(permissions: &str, source: StsError) -> GraphError {
    GraphError::NoToken { permissions: permissions.to_owned(), source }
}

fn no_application_token(source: StsError) -> GraphError {
    GraphError::NoApplicationToken { source }
}
