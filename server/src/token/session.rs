//! Access tokens of this server's own authorization server: their claims and sessions.
//!
//! Such a token represents a person who signed in with Entra. Entra's token stays in the session and is fetched for
//! calls to Graph.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::jwt::UnverifiedToken;

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
    /// Same as `iat`.
    pub nbf: u64,
    /// End, in seconds since 1970.
    pub exp: u64,
    /// Start of the session, in seconds since 1970.
    pub auth_time: i64,
    /// The tenant, a GUID in lower case.
    pub tid: String,
    /// The user, a GUID in lower case.
    pub oid: String,
    /// The scopes of the server's app registration in Entra's token.
    pub scp: String,
    /// App roles.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    /// Groups; absent if they are unknown or too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<String>>,
    /// Authentication contexts that the sign-in satisfies.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub acrs: BTreeSet<String>,
    /// True for a guest of the tenant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guest: bool,
}

/// The sessions of the tokens, and the keys that sign them.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// True if the published key with this id made this ES256 signature (in base64url) of the message.
    fn has_signed(&self, key_id: &str, message: &[u8], signature: &str) -> bool;

    /// False if the session of these claims has ended, or belongs to another person or client.
    async fn is_open(&self, claims: &SessionClaims) -> bool;

    /// Returns Entra's access token for this server.
    ///
    /// # Errors
    /// If the session has ended, or its store does not answer.
    async fn entra_token(&self, id: &str) -> Result<SecretString, SessionError>;

    /// Records that the session's client was asked for more scopes, which a refresh cannot add.
    async fn expect_step_up(&self, id: &str);

    /// Ends the session, so that its client must sign the person in again. The new sign-in must satisfy these claims,
    /// if any.
    ///
    /// # Errors
    /// If the store does not answer.
    async fn end_until_sign_in(&self, id: &str, claims: Option<&str>) -> Result<(), SessionError>;
}

/// The session of a token.
#[derive(Clone)]
pub struct SessionOfToken {
    id: String,
    sessions: Arc<dyn Sessions>,
}

impl SessionOfToken {
    /// Returns the session with this id.
    pub(super) fn new(id: String, sessions: Arc<dyn Sessions>) -> Self {
        Self { id, sessions }
    }

    /// Returns the session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns Entra's access token for this server.
    ///
    /// # Errors
    /// If the session has ended, or its store does not answer.
    pub async fn entra_token(&self) -> Result<SecretString, SessionError> {
        self.sessions.entra_token(&self.id).await
    }

    /// Records that the client was asked for more scopes.
    pub async fn expect_step_up(&self) {
        self.sessions.expect_step_up(&self.id).await;
    }

    /// Ends the session, so that its client must sign the person in again and satisfy these claims.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn end_until_sign_in(&self, claims: Option<&str>) -> Result<(), SessionError> {
        self.sessions.end_until_sign_in(&self.id, claims).await
    }
}

/// Prefix of scopes that request a permission of Microsoft Graph.
pub const GRAPH_SCOPE: &str = "graph:";
/// Prefix of scopes that request a sign-in with an authentication context.
pub const CONTEXT_SCOPE: &str = "acrs:";

/// Returns the scope that requests a permission of Microsoft Graph.
pub fn graph_scope(permission: &str) -> String {
    format!("{GRAPH_SCOPE}{permission}")
}

/// Returns the scope that requests a sign-in with an authentication context.
pub fn context_scope(context: &str) -> String {
    format!("{CONTEXT_SCOPE}{context}")
}

/// The reason why a session's token of Entra is not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The session has ended.
    #[error("the session has ended; sign in again")]
    Ended,
    /// The store does not answer.
    #[error("the session store does not answer; try again in a minute")]
    Unavailable,
}

/// Returns the session of an access token that this server signed, valid or expired.
pub fn session_of(bearer: &str, sessions: &dyn Sessions) -> Option<String> {
    let token = UnverifiedToken::parse(bearer).ok()?;
    token.pin("ES256").ok().filter(|()| token.is_typed(TOKEN_TYPE))?;
    let is_signed = sessions.has_signed(token.key_id(), token.signed_part().as_bytes(), token.signature());
    let id = token.unverified_claims().get("sid").and_then(serde_json::Value::as_str);
    id.filter(|_| is_signed).map(str::to_owned)
}
