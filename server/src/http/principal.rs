//! The principal: the verified owner of the token, and the only source of identity in later stages.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;

use super::answer::{self, Refusal};
use super::bearer::Bearer;
use super::client_address::ClientAddress;
use super::{Gate, rate_limit};
use crate::audit::Trail;
use crate::authorize::PolicyInForce;
use crate::protocol::Exchange;
use crate::token::{Principal, Remedy, TokenError};

/// Verifies and consumes the token.
pub(super) async fn stage(
    gate: &Gate,
    trail: &Trail,
    address: ClientAddress,
    Bearer(token): Bearer,
) -> Result<Arc<Principal>, Refusal> {
    match gate.tokens.validate_secret(token).await {
        Ok(principal) => {
            trail.authenticated(Arc::clone(&principal));
            Ok(principal)
        }
        Err(error) => {
            tracing::info!(reason = error.reason(), "token refused: {error}");
            let response = refuse(gate, &error);
            // Missing signing keys are not the fault of the token.
            if response.status().is_client_error() {
                rate_limit::count_refused_token(gate, address);
            }
            Err(Refusal::new(error.reason(), response))
        }
    }
}

/// Refuses a token if its session was revoked between its validation and the verdict on its request.
pub(super) fn still_in_session(gate: &Gate, before: &PolicyInForce, exchange: &Exchange) -> Result<(), Refusal> {
    if exchange.principal.session().is_some() && exchange.permissions.revoked() != before.revoked() {
        let text = "sessions were revoked during this request; send it again";
        return Err(Refusal::new("session_ended", gate.challenge.invalid_token(text)));
    }
    Ok(())
}

fn refuse(gate: &Gate, error: &TokenError) -> Response {
    let text = error.to_string();
    match error.remedy() {
        Remedy::AnotherToken => gate.challenge.invalid_token(&text),
        Remedy::MoreScopes => gate.challenge.insufficient_scope(None, &text, &BTreeSet::new()),
        Remedy::Administrator => answer::problem(StatusCode::FORBIDDEN, &text),
        Remedy::Patience => answer::try_later(&text),
    }
}
