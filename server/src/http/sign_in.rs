//! Another sign-in of the user, where the answer depends on it. A tool cannot set an HTTP status: it leaves in the request
//! the sign-in that it needs, and here the answer becomes the challenge that the client can meet.
//!
//! Where the client cannot, or was asked the same already, the tool's own answer stands, which says in words what to do.

use axum::response::Response;

use super::Gate;
use crate::audit::Trail;
use crate::entra::SignIn;
use crate::protocol::Exchange;
use crate::token::Principal;

const DESCRIPTION: &str =
    "Microsoft Entra ID takes another sign-in of the user before this server may reach Microsoft Graph for them";

/// Answers by a challenge where only the user's next sign-in helps.
pub(super) async fn stage(gate: &Gate, trail: &Trail, exchange: &Exchange, answer: Response) -> Response {
    let Some(sign_in) = exchange.sign_in.told() else { return answer };
    match challenge(gate, &exchange.principal, sign_in).await {
        Some((challenge, reason)) => {
            trail.challenged(reason);
            challenge
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
