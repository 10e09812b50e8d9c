//! The things that an answer depends on: another sign-in of the user, or patience. A tool cannot set an HTTP status: it leaves in the
//! request what it needs, and here the answer becomes the challenge that the client can meet, or 503.
//!
//! Where the client cannot meet a challenge, or was asked the same already, the tool's own answer stands, which says in words
//! what to do.

use axum::response::Response;

use super::{Gate, answer};
use crate::audit::Trail;
use crate::entra::SignIn;
use crate::protocol::{Exchange, Need};
use crate::token::Principal;

const DESCRIPTION: &str =
    "Microsoft Entra ID takes another sign-in of the user before this server may reach Microsoft Graph for them";

/// The reason in the audit log where the store with the user's session does not answer.
pub(super) const STORE_AWAY: &str = "session_store_unavailable";

/// Answers by a challenge where only the user's next sign-in helps, and by 503 where the same call may work soon.
pub(super) async fn stage(gate: &Gate, trail: &Trail, exchange: &Exchange, answer: Response) -> Response {
    let better = match exchange.needs.told() {
        None => None,
        Some(Need::SignIn(sign_in)) => challenge(gate, &exchange.principal, sign_in).await,
        Some(Need::Patience(text)) => Some((answer::try_later(text), STORE_AWAY)),
    };
    match better {
        Some((better, reason)) => {
            trail.challenged(reason);
            better
        }
        None => answer,
    }
}

/// The challenge to this sign-in and its reason, if the client can meet it and was not asked the same already.
pub(super) async fn challenge(
    gate: &Gate,
    principal: &Principal,
    sign_in: &SignIn,
) -> Option<(Response, &'static str)> {
    let challenge = gate.challenge.sign_in(principal, sign_in, DESCRIPTION).await?;
    let reason = match sign_in {
        SignIn::Anew => "sign_in_needed",
        SignIn::Consenting(_) => "insufficient_scope",
        SignIn::Satisfying(_) => "insufficient_claims",
    };
    Some((challenge, reason))
}
