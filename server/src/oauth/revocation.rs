//! The revocation endpoint (RFC 7009). Any token of a session ends the session.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::AuthorizationServer;
use super::answer::ClientError;
use super::parameters::Parameters;
use crate::audit::{Outcome, Trail};
use crate::token::session_of;

impl AuthorizationServer {
    /// Ends the session of a token. An unknown token is not an error (RFC 7009 section 2.2).
    pub(super) async fn revoke(&self, trail: &Trail, body: &[u8]) -> Result<Response, ClientError> {
        let parameters = Parameters::parse(body)?;
        let (token, client_id) = (parameters.require("token")?, parameters.require("client_id")?);
        let session = match self.sessions.open_refresh_token(token) {
            Some(refresh_token) => Some(refresh_token.id),
            None => session_of(token, &*self.sessions),
        };
        if let Some(id) = session
            && let Some(read) = self.sessions.read(&id).await?
            && read.session.client.id == client_id
        {
            self.sessions.end(&id).await?;
            let person = &read.session.person;
            trail.concerns(&person.tenant_id, &person.object_id, &read.session.client.reference);
            trail.decided(Outcome::Done("session_revoked"));
        }
        Ok(StatusCode::OK.into_response())
    }
}
