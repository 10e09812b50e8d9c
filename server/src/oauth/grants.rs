//! The token endpoint. It turns an authorization code into a session, and a refresh token into the session's next
//! tokens ([`refresh`](super::refresh)).
//!
//! A code is valid once, for a minute, for its client, redirect URI and verifier.

use std::sync::PoisonError;
use std::time::Duration;

use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::AuthorizationServer;
use super::access_token;
use super::answer::{self, ClientError};
use super::parameters::{Missing, Parameters, Unreadable};
use super::records::RecordError;
use super::request::AuthorizationRequest;
use super::seal::Purpose;
use super::session::Session;
use crate::audit::{Outcome, Trail};
use crate::token::{Principal, User};

/// Lifetime of a code, in seconds.
pub(super) const CODE_LIFETIME: i64 = 60;
/// Time in which a replayed code ends its session, in seconds.
const CODE_REMEMBERED: i64 = 600;

/// Content of an authorization code.
#[derive(Serialize, Deserialize)]
pub(super) struct Code {
    /// Id of the session to begin.
    pub(super) session: String,
    /// Id of the record with the grant.
    pub(super) grant: String,
    /// Time of issue, in seconds since 1970.
    pub(super) issued: i64,
}

/// The grant of a code.
#[derive(Serialize, Deserialize)]
pub(super) struct Grant {
    /// The request that the person approved.
    pub(super) request: AuthorizationRequest,
    /// The session to begin.
    pub(super) session: Session,
}

impl From<Missing> for ClientError {
    fn from(missing: Missing) -> Self {
        Self::new("invalid_request", missing.to_string(), "oauth_request_malformed")
    }
}

impl From<Unreadable> for ClientError {
    fn from(unreadable: Unreadable) -> Self {
        Self::new("invalid_request", unreadable.to_string(), "oauth_request_malformed")
    }
}

impl From<RecordError> for ClientError {
    fn from(error: RecordError) -> Self {
        tracing::warn!(%error, "cannot use the session store");
        Self::later("the session store does not answer; try again in a minute", "session_store_unavailable")
    }
}

impl AuthorizationServer {
    /// Answers a token request.
    pub(super) async fn tokens(&self, trail: &Trail, body: &[u8]) -> Result<Response, ClientError> {
        let parameters = Parameters::parse(body)?;
        if parameters.get("resource").is_some_and(|resource| !self.addresses.is_resource(resource)) {
            let text = "the resource is another server; send the URL of this server";
            return Err(ClientError::new("invalid_target", text, "another_audience"));
        }
        let client_id = parameters.require("client_id")?;
        // Checked before the token. A client registers again only after this answer.
        if !self.clients.know(client_id) {
            return Err(ClientError::client());
        }
        let (id, session) = match parameters.require("grant_type")? {
            "authorization_code" => self.redeem(trail, client_id, &parameters).await?,
            "refresh_token" => self.refresh(trail, client_id, parameters.require("refresh_token")?).await?,
            _ => {
                let text = "send grant_type=authorization_code or refresh_token";
                return Err(ClientError::new("unsupported_grant_type", text, "oauth_request_malformed"));
            }
        };
        self.note_key().await;
        self.answer(&id, &session)
    }

    /// Records a change of the signing key in an audit line of its own.
    async fn note_key(&self) {
        let key = &self.ring.signing(super::now()).key_id;
        let is_new = {
            let mut signed_with = self.signed_with.lock().unwrap_or_else(PoisonError::into_inner);
            *signed_with != *key && std::mem::replace(&mut *signed_with, key.clone()) != *key
        };
        if is_new && let Some(recording) = self.audit.begin(Uuid::new_v4().to_string(), Duration::ZERO).await {
            recording.trail().understood("oauth/token", None);
            recording.trail().decided(Outcome::Done("keys_rotated"));
        }
    }

    fn answer(&self, id: &str, session: &Session) -> Result<Response, ClientError> {
        let token = access_token::issue(&self.ring, &self.addresses, id, session, super::now()).map_err(|error| {
            tracing::error!(%error, "cannot sign an access token");
            ClientError::later("this server cannot sign tokens; try again later", "defect")
        })?;
        let document = json!({
            "access_token": token.expose_secret(),
            "token_type": "Bearer",
            "expires_in": access_token::LIFETIME,
            "refresh_token": session.refresh_token(),
            "scope": session.scope(),
        });
        Ok(answer::document(StatusCode::OK, &document))
    }

    async fn redeem(
        &self,
        trail: &Trail,
        client_id: &str,
        parameters: &Parameters,
    ) -> Result<(String, Session), ClientError> {
        let worthless = "this server did not issue the code, or it has expired; start the sign-in again";
        let code: Option<Code> = self.sealer.open_value(Purpose::Code, parameters.require("code")?);
        let code = code.ok_or_else(|| ClientError::grant(worthless, "code_not_valid"))?;
        let verifier = parameters.require("code_verifier")?;
        if super::now().saturating_sub(code.issued) > CODE_REMEMBERED {
            return Err(ClientError::grant(worthless, "code_not_valid"));
        }
        let Some(grant) = self.records.take::<Grant>(Purpose::Code, &code.grant).await? else {
            // RFC 6749 section 4.1.2: the first use may have been the attacker's.
            self.sessions.end(&code.session).await?;
            let text = "the code was used before, so its session was ended; sign in again";
            return Err(ClientError::grant(text, "code_replayed"));
        };
        if super::now().saturating_sub(code.issued) > CODE_LIFETIME {
            return Err(ClientError::grant(worthless, "code_not_valid"));
        }
        let Grant { request, session } = grant;
        if !self.clients.admit(&session.client.id, &session.client.kind) {
            return Err(ClientError::client());
        }
        trail.concerns(&session.person.tenant_id, &session.person.object_id, &session.client.reference);
        let redirect_uri = parameters.get("redirect_uri");
        if session.client.id != client_id || redirect_uri.is_some_and(|asked| asked != request.redirect_uri) {
            let text = "the code belongs to another client or redirect_uri; start the sign-in again";
            return Err(ClientError::grant(text, "code_of_another_client"));
        }
        if !verifies(verifier, &request.code_challenge) {
            let text = "the code_verifier does not match the code_challenge; start the sign-in again";
            return Err(ClientError::grant(text, "code_verifier_wrong"));
        }
        let Some(session) = self.sessions.begin(&code.session, session).await? else {
            return Err(ClientError::grant(worthless, "code_replayed"));
        };
        trail.decided(Outcome::Done("session_begun"));
        Ok((code.session, session))
    }
}

/// Returns the person of a verified token.
pub(super) fn user(principal: &Principal) -> Option<&User> {
    match principal {
        Principal::User(user) => Some(user),
        Principal::Application(_) | Principal::LocalUser(_) => None,
    }
}

/// True if the S256 challenge matches this verifier (RFC 7636 section 4.6).
fn verifies(verifier: &str, challenge: &str) -> bool {
    let length = 43..=128;
    let computed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
    length.contains(&verifier.len())
        && aws_lc_rs::constant_time::verify_slices_are_equal(computed.as_bytes(), challenge.as_bytes()).is_ok()
}
