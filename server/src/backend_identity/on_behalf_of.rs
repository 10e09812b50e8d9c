//! Tokens of Entra for the backend, on behalf of users. They have one scope, never one of this server; the validation
//! of the configuration checks this.

use std::sync::Arc;

use mcp_entra_policy::BackendScope;
use secrecy::{ExposeSecret, SecretString};

use super::error::BackendIdentityError;
use crate::entra::{ClaimsChallenge, OnBehalfOf, Sts, StsError};
use crate::token::Principal;

/// The tokens of all users for one scope.
pub(super) struct Tokens {
    sts: Arc<Sts>,
    scope: BackendScope,
}

impl Tokens {
    pub(super) fn new(scope: &BackendScope, sts: Arc<Sts>) -> Self {
        Self { sts, scope: scope.clone() }
    }

    /// Returns a token on behalf of this user, from the cache if possible.
    pub(super) async fn token(&self, principal: &Principal) -> Result<SecretString, BackendIdentityError> {
        let token = self.sts.on_behalf_of(&self.user(principal)?).await.map_err(|source| self.no_token(source))?;
        Ok(token.access_token.clone())
    }

    /// Returns another token in place of one that the backend rejected. It satisfies the challenge. If another call
    /// already replaced the rejected token, returns that one.
    pub(super) async fn instead_of(
        &self,
        rejected: &SecretString,
        challenge: Option<&ClaimsChallenge>,
        principal: &Principal,
    ) -> Result<SecretString, BackendIdentityError> {
        let user = self.user(principal)?;
        let mut token = self.sts.on_behalf_of(&user).await.map_err(|source| self.no_token(source))?;
        if token.access_token.expose_secret() == rejected.expose_secret() {
            let replacement = self.sts.instead_of(&token, challenge, &user).await;
            token = replacement.map_err(|source| self.no_token(source))?;
        }
        Ok(token.access_token.clone())
    }

    fn user(&self, principal: &Principal) -> Result<OnBehalfOf, BackendIdentityError> {
        match principal {
            Principal::User(user) => {
                let (resource, name) = self.scope.parts();
                Ok(OnBehalfOf::new(user, resource, [name]))
            }
            Principal::Application(_) | Principal::LocalUser(_) => Err(BackendIdentityError::NoUser),
        }
    }

    fn no_token(&self, source: StsError) -> BackendIdentityError {
        BackendIdentityError::NoToken { scope: self.scope.scope.clone(), source }
    }
}
