//! The protocol revision of a request, and the headers that repeat parts of its body for intermediaries.

use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::Value;

use super::answer::{self, Refusal};
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::authorize::{Malformed, Message, Method};
use crate::protocol::{self, Exchange, Revision};

/// Returns the revision of a request. Refuses headers that differ from the body.
pub(super) fn stage(message: &Message, parts: &Parts) -> Result<Revision, Refusal> {
    // A notification has no params that name a revision. A handshake uses the revision that it requests.
    let revision = match &message.method {
        Method::Initialize { revision, .. } => Ok(Revision::agreed(revision)),
        _ if message.id.is_none() => return Ok(Revision::UNNAMED),
        _ => protocol::revision(&parts.headers, &message.meta),
    };
    let checked = revision
        .and_then(|revision| protocol::method_and_name(&parts.headers, &message.method, revision).map(|()| revision));
    checked.map_err(|error| refused(message.answer_id(), &error))
}

/// Returns the refusal of a malformed message whose revision is unsupported or missing. It takes precedence over
/// errors of method and params.
pub(super) fn of_malformed(malformed: &Malformed, parts: &Parts) -> Option<Refusal> {
    if !malformed.depends_on_revision() {
        return None;
    }
    let error = protocol::revision(&parts.headers, &malformed.meta).err()?;
    let is_about_revision = error.code == code::UNSUPPORTED_VERSION || malformed.meta.revision.is_none();
    is_about_revision.then(|| refused(&malformed.id, &error))
}

/// Refuses headers that differ from the arguments of a tool. The offer determines these headers.
pub(super) fn parameters(message: &Message, parts: &Parts, exchange: &Exchange) -> Result<(), Refusal> {
    match message.method.operation().filter(|_| exchange.revision.is_modern()) {
        Some(operation) => protocol::parameters(&parts.headers, operation, &exchange.offered)
            .map_err(|error| refused(message.answer_id(), &error)),
        None => Ok(()),
    }
}

fn refused(id: &Value, error: &ErrorValue) -> Refusal {
    let reason = match error.code {
        code::HEADER_MISMATCH => "header_mismatch",
        code::UNSUPPORTED_VERSION => "unsupported_version",
        _ => "invalid_message",
    };
    Refusal::new(reason, answer::json_rpc_error(StatusCode::BAD_REQUEST, id, error))
}
