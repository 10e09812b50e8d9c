//! The server's own authorization server as an issuer of tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use mcp_entra_policy::{Caller, CallerKind, CompactSet, Groups, Registration, ServerConfiguration};
use uuid::Uuid;

use super::assertion::Assertion;
use super::claims::check_lifetime;
use super::error::TokenError;
use super::jwt::UnverifiedToken;
use super::principal::{Membership, Principal, Profile, User};
use super::session::{SessionClaims, SessionOfToken, Sessions, TOKEN_TYPE};

/// The server's own authorization server as an issuer of tokens.
pub struct OwnIssuer {
    issuer: String,
    audience: String,
    tenant: String,
    registration: String,
    required_scopes: BTreeSet<String>,
    sessions: Arc<dyn Sessions>,
}

impl OwnIssuer {
    /// Returns the issuer with this name, whose tokens are for the server at this URL.
    pub fn new(
        issuer: String,
        audience: String,
        configuration: &ServerConfiguration,
        sessions: Arc<dyn Sessions>,
    ) -> Self {
        let entra = &configuration.entra;
        Self {
            issuer,
            audience,
            tenant: entra.tenant_id.clone(),
            registration: entra.client_id.clone(),
            required_scopes: entra.required_scopes.iter().cloned().collect(),
            sessions,
        }
    }

    /// True if a token names this issuer. This proves nothing.
    pub(super) fn is_named_by(&self, token: &UnverifiedToken<'_>) -> bool {
        token.unverified_claims().get("iss").and_then(serde_json::Value::as_str) == Some(&*self.issuer)
    }

    /// Returns the principal of this token at this time, in seconds since 1970.
    pub(super) async fn principal(&self, token: &UnverifiedToken<'_>, now: u64) -> Result<Principal, TokenError> {
        token.pin("ES256")?;
        if !token.is_typed(TOKEN_TYPE) {
            return Err(TokenError::Malformed("it is not an access token (its typ is not at+jwt)"));
        }
        if !self.sessions.has_signed(token.key_id(), token.signed_part().as_bytes(), token.signature()) {
            return Err(TokenError::Signature);
        }
        let expires_at = check_lifetime(token.unverified_claims(), now)?;
        let claims: SessionClaims =
            serde_json::from_value(serde_json::Value::Object(token.unverified_claims().clone()))
                .map_err(|_| TokenError::Claim("sid"))?;
        if claims.aud != self.audience {
            return Err(TokenError::Audience { audience: "another server".to_owned(), scope: self.scopes() });
        }
        if claims.tid != self.tenant {
            return Err(TokenError::Tenant { tenant: "another one".to_owned(), expected: self.tenant.clone() });
        }
        if !self.sessions.is_open(&claims).await {
            return Err(TokenError::SessionEnded);
        }
        self.user(claims, expires_at)
    }

    fn user(&self, claims: SessionClaims, expires_at: u64) -> Result<Principal, TokenError> {
        let scopes: CompactSet<Box<str>> = claims.scp.split(' ').collect();
        if !scopes.iter().any(|scope| self.required_scopes.contains(&**scope)) {
            return Err(TokenError::ScopeMissing { scopes: self.scopes() });
        }
        let groups = claims.groups.and_then(|groups| groups.iter().map(|group| Uuid::try_parse(group).ok()).collect());
        let caller = Caller {
            kind: CallerKind::User,
            registration: Registration::Known(self.registration.clone()),
            client_id: claims.client_id,
            roles: claims.roles.into_iter().collect(),
            groups: groups.map_or(Groups::Unknown, Groups::Known),
            scopes,
            authentication_contexts: claims.acrs.into_iter().collect(),
        };
        let profile = Profile {
            tenant_id: claims.tid,
            object_id: claims.oid,
            membership: if claims.guest { Membership::Guest } else { Membership::Member },
            caller: Arc::new(caller),
            // The authorization server handles it at the client's next sign-in.
            accepts_claims_challenge: true,
            expires_at,
        };
        let assertion = Assertion::of_session(SessionOfToken::new(claims.sid, Arc::clone(&self.sessions)));
        Ok(Principal::User(User { profile: Arc::new(profile), assertion }))
    }

    fn scopes(&self) -> String {
        Vec::from_iter(self.required_scopes.iter().map(String::as_str)).join(" ")
    }
}
