//! Whose token is it? From here on a request has a verified [`Principal`], and no other source of identity.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use secrecy::ExposeSecret;

use super::bearer::Bearer;
use super::{Gate, answer};
use crate::audit::{Outcome, Trail};
use crate::token::{Principal, Remedy, TokenError};

/// Lets verified tokens in: the request carries `Arc<Principal>` from here on, and its bearer token no longer.
pub(super) async fn layer(
    State(gate): State<Arc<Gate>>,
    Extension(trail): Extension<Arc<Trail>>,
    Extension(Bearer(token)): Extension<Bearer>,
    mut request: Request,
    next: Next,
) -> Response {
    match gate.tokens.validate(token.expose_secret()).await {
        Ok(principal) => {
            trail.authenticated(Arc::clone(&principal));
            request.extensions_mut().remove::<Bearer>();
            request.extensions_mut().insert::<Arc<Principal>>(principal);
            next.run(request).await
        }
        Err(error) => {
            tracing::info!(reason = error.reason(), "token refused: {error}");
            trail.decided(Outcome::Refused(error.reason()));
            refuse(&gate, &error)
        }
    }
}

fn refuse(gate: &Gate, error: &TokenError) -> Response {
    let text = error.to_string();
    match error.remedy() {
        Remedy::AnotherToken => gate.challenge.invalid_token(&text),
        Remedy::MoreScopes => gate.challenge.insufficient_scope(&text, &BTreeSet::new()),
        Remedy::Administrator => answer::problem(StatusCode::FORBIDDEN, &text),
        Remedy::Patience => answer::try_later(&text),
    }
}
