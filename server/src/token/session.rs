//! Access tokens of this server's own authorization server: their claims, and the sessions that they belong to.
//!
//! Such a token stands for a person whom Entra has signed in. Entra's token stays in the session, where it is fetched when
//! Graph is reached for the person.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use mcp_entra_policy::{Caller, CallerKind, Groups, Registration, ServerConfiguration};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::assertion::Assertion;
use super::claims::check_lifetime;
use super::error::TokenError;
use super::jwt::UnverifiedToken;
use super::principal::{Membership, Principal, User};

/// `typ` of these tokens (RFC 9068 section 2.1).
pub const TOKEN_TYPE: &str = "at+jwt";

/// Claims of an access token (RFC 9068) of this server's own authorization server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionClaims {
    /// The authorization server.
    pub iss: String,
    /// The server's canonical URL.
    pub aud: String,
    /// The user: the same as `oid`.
    pub sub: String,
    /// Short name of the client.
    pub client_id: String,
    /// The session.
    pub sid: String,
    /// Id of this token.
    pub jti: String,
    /// Start, in seconds since 1970.
    pub iat: u64,
    /// The same.
    pub nbf: u64,
    /// End, in seconds since 1970.
    pub exp: u64,
    /// Begin of the session, in seconds since 1970.
    pub auth_time: i64,
    /// The tenant, a GUID in lower case.
    pub tid: String,
    /// The user, a GUID in lower case.
    pub oid: String,
    /// The scopes of the server's app registration that Entra's token carries.
    pub scp: String,
    /// App roles.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    /// Groups; absent where they are unknown or too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<String>>,
    /// Authentication contexts that the sign-in satisfied.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub acrs: BTreeSet<String>,
    /// True for a guest of the tenant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guest: bool,
}

/// The sessions behind the tokens, and the keys that sign them.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// True if the published key of this id made this ES256 signature (in base64url) of the message.
    fn has_signed(&self, key_id: &str, message: &[u8], signature: &str) -> bool;

    /// True unless the session of these claims is known to have ended, or to be another person's or client's.
    async fn is_open(&self, claims: &SessionClaims) -> bool;

    /// Entra's access token for this server.
    ///
    /// # Errors
    /// If the session has ended, or its store does not answer.
    async fn entra_token(&self, id: &str) -> Result<SecretString, SessionError>;

    /// Notes that the session's client is asked for more scopes: a refresh does not bring them.
    async fn expect_step_up(&self, id: &str);

    /// Ends the session, so that its client signs the person in again. That sign-in is to satisfy these claims, if there
    /// are any.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn end_until_sign_in(
        &self,
        id: &str,
        principal: &Principal,
        claims: Option<&str>,
    ) -> Result<(), SessionError>;
}

/// The session that a token is of.
#[derive(Clone)]
pub struct SessionOfToken {
    id: String,
    sessions: Arc<dyn Sessions>,
}

impl SessionOfToken {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Entra's access token for this server.
    ///
    /// # Errors
    /// If the session has ended, or its store does not answer.
    pub async fn entra_token(&self) -> Result<SecretString, SessionError> {
        self.sessions.entra_token(&self.id).await
    }

    /// Notes that the client is asked for more scopes.
    pub async fn expect_step_up(&self) {
        self.sessions.expect_step_up(&self.id).await;
    }

    /// Ends the session of this principal, so that its client signs the person in again, to satisfy these claims.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn end_until_sign_in(&self, principal: &Principal, claims: Option<&str>) -> Result<(), SessionError> {
        self.sessions.end_until_sign_in(&self.id, principal, claims).await
    }
}

/// Prefix of the scope by which clients ask for a permission of Microsoft Graph.
pub const GRAPH_SCOPE: &str = "graph:";
/// Prefix of the scope by which clients ask for a sign-in that satisfies an authentication context.
pub const CONTEXT_SCOPE: &str = "acrs:";

/// The scope by which clients ask for a permission of Microsoft Graph.
pub fn graph_scope(permission: &str) -> String {
    format!("{GRAPH_SCOPE}{permission}")
}

/// The scope by which clients ask for a sign-in that satisfies an authentication context.
pub fn context_scope(context: &str) -> String {
    format!("{CONTEXT_SCOPE}{context}")
}

/// A reason for which Entra's token of a session cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The session has ended.
    #[error("the session has ended; sign in again")]
    Ended,
    /// The store does not answer.
    #[error("the session store does not answer; try again in a minute")]
    Unavailable,
}

/// The server's own authorization server, as an issuer of tokens.
pub struct OwnIssuer {
    issuer: String,
    audience: String,
    tenant: String,
    registration: String,
    required_scopes: BTreeSet<String>,
    sessions: Arc<dyn Sessions>,
}

impl OwnIssuer {
    /// The issuer of this name, whose tokens are for the server at this URL.
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

    /// True if a token says that it is of this issuer. Nothing is proven by that.
    pub(super) fn is_named_by(&self, token: &UnverifiedToken<'_>) -> bool {
        token.unverified_claims().get("iss").and_then(serde_json::Value::as_str) == Some(&*self.issuer)
    }

    /// The principal of this token at this time, in seconds since 1970.
    pub(super) async fn principal(&self, token: &UnverifiedToken<'_>, now: u64) -> Result<Principal, TokenError> {
        token.pin("ES256")?;
        if !token.is_typed(TOKEN_TYPE) {
            return Err(TokenError::Malformed("it is no access token (its typ is not at+jwt)"));
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
        let scopes: BTreeSet<String> = claims.scp.split(' ').map(str::to_owned).collect();
        if scopes.is_disjoint(&self.required_scopes) {
            return Err(TokenError::ScopeMissing { scopes: self.scopes() });
        }
        let groups = claims.groups.map_or(Groups::Unknown, Groups::Known);
        let caller = Caller {
            kind: CallerKind::User,
            registration: Registration::Known(self.registration.clone()),
            client_id: claims.client_id,
            roles: claims.roles,
            groups,
            scopes,
            authentication_contexts: claims.acrs,
        };
        Ok(Principal::User(User {
            tenant_id: claims.tid,
            object_id: claims.oid,
            membership: if claims.guest { Membership::Guest } else { Membership::Member },
            caller: Arc::new(caller),
            // The authorization server answers it, at the client's next sign-in.
            accepts_claims_challenge: true,
            assertion: Assertion::of_session(SessionOfToken { id: claims.sid, sessions: Arc::clone(&self.sessions) }),
            expires_at,
        }))
    }

    fn scopes(&self) -> String {
        Vec::from_iter(self.required_scopes.iter().map(String::as_str)).join(" ")
    }
}

/// The session of an access token that this server has signed, be it valid or expired.
pub fn session_of(bearer: &str, sessions: &dyn Sessions) -> Option<String> {
    let token = UnverifiedToken::parse(bearer).ok()?;
    token.pin("ES256").ok().filter(|()| token.is_typed(TOKEN_TYPE))?;
    let is_signed = sessions.has_signed(token.key_id(), token.signed_part().as_bytes(), token.signature());
    let id = token.unverified_claims().get("sid").and_then(serde_json::Value::as_str);
    id.filter(|_| is_signed).map(str::to_owned)
}
