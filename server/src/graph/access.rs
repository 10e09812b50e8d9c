//! Access to Graph: as a user or as the application, and with which token.

use std::sync::Arc;

use super::error::GraphError;
use crate::entra::{ApplicationCredential, ClaimsChallenge, GraphToken, OnBehalfOf, Sts, StsError};

/// Identity in which Graph is asked.
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
}

impl Access {
    pub(super) async fn token(&self) -> Result<Arc<GraphToken>, GraphError> {
        match self {
            Self::OnBehalfOf { sts, user } => sts.on_behalf_of(user).await.map_err(|source| no_token(user, source)),
            Self::Application(application) => application.token().await.map_err(no_application_token),
        }
    }

    /// Another token in place of one that Graph rejected. Nobody can answer a challenge to an application: it declares no
    /// such capability.
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
        }
    }
}

fn no_token(user: &OnBehalfOf, source: StsError) -> GraphError {
    GraphError::NoToken { permissions: user.permissions(), source }
}

fn no_application_token(source: StsError) -> GraphError {
    GraphError::NoApplicationToken { source }
}
