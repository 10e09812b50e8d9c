//! The revision of the protocol that a request speaks, and the headers that repeat its body for those between.

use axum::http::StatusCode;
use axum::http::request::Parts;

use super::answer::{self, Refusal};
use crate::authorize::Message;
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::protocol::{self, Exchange, Revision};

/// The revision that a request speaks. Refuses headers that are not what the body says.
pub(super) fn stage(message: &Message, parts: &Parts) -> Result<Revision, Refusal> {
    protocol::revision(&parts.headers, message).map_err(|error| refused(message, &error))
}

/// Refuses headers that are not what the arguments of a tool say. Only what is offered tells which headers those are.
pub(super) fn parameters(message: &Message, parts: &Parts, exchange: &Exchange) -> Result<(), Refusal> {
    match message.method.operation().filter(|_| exchange.revision.is_modern()) {
        Some(operation) => {
            protocol::parameters(&parts.headers, operation, &exchange.offered).map_err(|error| refused(message, &error))
        }
        None => Ok(()),
    }
}

fn refused(message: &Message, error: &ErrorValue) -> Refusal {
    let reason = match error.code {
        code::HEADER_MISMATCH => "header_mismatch",
        code::UNSUPPORTED_VERSION => "unsupported_version",
        _ => "invalid_message",
    };
    Refusal::new(reason, answer::json_rpc_error(StatusCode::BAD_REQUEST, message.answer_id(), error))
}
