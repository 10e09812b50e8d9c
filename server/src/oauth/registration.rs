//! The registration endpoint (RFC 7591).

use axum::response::Response;
use http::StatusCode;

use super::AuthorizationServer;
use super::answer::{self, ClientError};
use crate::audit::{Outcome, Trail};

impl AuthorizationServer {
    /// Registers a client. Nothing is stored: the client's id is its sealed registration.
    pub(super) fn register(&self, trail: &Trail, body: &[u8]) -> Result<Response, ClientError> {
        let document = self
            .clients
            .register(body)
            .map_err(|error| ClientError::registration(error.status(), error.code(), error.to_string()))?;
        trail.decided(Outcome::Done("client_registered"));
        Ok(answer::document(StatusCode::CREATED, &document))
    }
}
