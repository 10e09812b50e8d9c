//! The caller's identity that is sent to a backend: none, a signed statement of this server, or a token of Entra.
//!
//! `assertion` signs the statement, `on_behalf_of` exchanges the user's token, and `error` has the failures. The
//! caller's own token is never sent.

mod assertion;
mod error;
mod on_behalf_of;

use std::sync::Arc;

use http::HeaderMap;
use mcp_entra_policy::{BackendConfiguration, BackendIdentity, ServerConfiguration};
use secrecy::SecretString;
use serde_json::{Value, json};

pub use assertion::{LIFETIME, TOKEN_TYPE};
pub use error::BackendIdentityError;

use assertion::Assertions;
use on_behalf_of::Tokens;

use crate::entra::{ClaimsChallenge, SignIn, Sts, claims_challenge};
use crate::es256::SigningError;
use crate::token::Principal;
use crate::www_authenticate::{BearerChallenge, Parameter};

/// The caller's identity in the form that the backend receives.
#[derive(Clone, Debug)]
pub enum Told {
    /// No identity.
    Nothing,
    /// A statement of this server, valid for one call. It goes into the header `mcp-entra-assertion`, or over stdio
    /// into the member `dev.mcp-entra/assertion` of `_meta`.
    Assertion(SecretString),
    /// A token of Entra on behalf of the user, for the header `Authorization`.
    Token(SecretString),
}

/// The source of caller identities for one server's backend.
pub struct BackendIdentities(Kind);

enum Kind {
    Nothing,
    Assertions(Box<Assertions>),
    Tokens(Tokens),
}

impl BackendIdentities {
    /// Returns the source for this configuration; without a backend, it is empty. Makes a new signing key if
    /// assertions are configured. `sts` exchanges the tokens of users.
    ///
    /// # Errors
    /// If the system has no random numbers for the key.
    pub fn new(configuration: &ServerConfiguration, sts: Arc<Sts>) -> Result<Self, SigningError> {
        Ok(Self(match configuration.backend.as_ref().map(|BackendConfiguration { identity, .. }| identity) {
            None | Some(BackendIdentity::None) => Kind::Nothing,
            Some(BackendIdentity::Assertion {}) => Kind::Assertions(Box::new(Assertions::new(&configuration.server)?)),
            Some(BackendIdentity::OnBehalfOf(scope)) => Kind::Tokens(Tokens::new(scope, sts)),
        }))
    }

    /// Returns the caller's identity for one call. `target` is the name of the tool or prompt, the URI of the
    /// resource, or else the method.
    ///
    /// # Errors
    /// If no identity can be made. The call must not reach the backend then.
    pub async fn tell(&self, principal: &Principal, target: &str) -> Result<Told, BackendIdentityError> {
        match &self.0 {
            Kind::Nothing => Ok(Told::Nothing),
            Kind::Assertions(assertions) => assertions.issue(principal, target).map(Told::Assertion),
            Kind::Tokens(tokens) => tokens.token(principal).await.map(Told::Token),
        }
    }

    /// Returns a statement about this caller for one request, if statements are configured and one can be signed.
    pub fn assert(&self, principal: &Principal, target: &str) -> Option<SecretString> {
        match &self.0 {
            Kind::Assertions(assertions) => assertions.issue(principal, target).ok(),
            Kind::Nothing | Kind::Tokens(_) => None,
        }
    }

    /// Returns the identity for the single retry of a call that the backend answered with 401 and these headers. A
    /// token is exchanged again, so that it satisfies the claims in the challenge. Concurrent calls share one
    /// exchange.
    ///
    /// Returns `None` if no token was sent, because a new one would change nothing.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub async fn tell_anew(
        &self,
        principal: &Principal,
        rejected: &Told,
        headers: &HeaderMap,
    ) -> Result<Option<Told>, BackendIdentityError> {
        let (Kind::Tokens(tokens), Told::Token(rejected)) = (&self.0, rejected) else { return Ok(None) };
        let token = tokens.instead_of(rejected, challenge(headers).as_ref(), principal).await?;
        Ok(Some(Told::Token(token)))
    }

    /// Returns the sign-in that the backend requests with these headers of a 401 answer, if it receives tokens of
    /// Entra. Other backends cannot make Entra ask for a sign-in.
    pub fn sign_in(&self, headers: &HeaderMap) -> Option<SignIn> {
        match &self.0 {
            Kind::Tokens(_) => challenge(headers).map(SignIn::Satisfying),
            Kind::Nothing | Kind::Assertions(_) => None,
        }
    }

    /// Returns the public keys for verifying assertions, as a JWK Set (RFC 7517), or `None` without assertions.
    pub fn jwks(&self) -> Option<Value> {
        match &self.0 {
            Kind::Assertions(assertions) => Some(json!({ "keys": [assertions.public_key()] })),
            Kind::Nothing | Kind::Tokens(_) => None,
        }
    }
}

/// Returns the claims challenge in these headers. Only the error `insufficient_claims` has one.
fn challenge(headers: &HeaderMap) -> Option<ClaimsChallenge> {
    let is_one = BearerChallenge::read(headers).values(Parameter::Error).any(|error| error == "insufficient_claims");
    is_one.then(|| claims_challenge(headers)).flatten()
}

#[cfg(test)]
mod tests {
    use http::header::WWW_AUTHENTICATE;

    use super::*;

    const CLAIMS: &str = "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxNjU3ODM0NDE3In19fQ";

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(WWW_AUTHENTICATE, value.parse().unwrap())])
    }

    #[test]
    fn a_claims_challenge_of_the_backend_is_read_by_its_error_code() {
        let json = r#"{"access_token":{"nbf":{"essential":true,"value":"1657834417"}}}"#;
        for value in [
            format!(r#"Bearer error="insufficient_claims", claims="{CLAIMS}""#),
            format!(r#"Bearer realm="", claims="{CLAIMS}==", error=insufficient_claims"#),
        ] {
            assert_eq!(challenge(&headers(&value)), ClaimsChallenge::parse(json), "{value}");
        }
        for value in [
            "Bearer".to_owned(),
            format!(r#"Bearer claims="{CLAIMS}""#),
            format!(r#"Bearer error="invalid_token", claims="{CLAIMS}""#),
            format!(r#"Bearer error_description="insufficient_claims", claims="{CLAIMS}""#),
            r#"Bearer error="insufficient_claims""#.to_owned(),
            r#"Bearer error="insufficient_claims", claims="e30""#.to_owned(),
        ] {
            assert_eq!(challenge(&headers(&value)), None, "{value}");
        }
        assert_eq!(challenge(&HeaderMap::new()), None);
    }
}
