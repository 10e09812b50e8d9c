//! Does the answer depend on the user's next sign-in? A tool cannot set an HTTP status: it leaves in the request what it
//! needs, and here the answer becomes the challenge that the client can meet.
//!
//! Where the client cannot, or was asked the same already, the tool's own answer stands, which says what to do in words.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::Gate;
use crate::audit::Trail;
use crate::entra::SignIn;
use crate::graph_tools::SignInNeeded;
use crate::token::Principal;

const DESCRIPTION: &str =
    "Microsoft Entra ID takes another sign-in of the user before this server may reach Microsoft Graph for them";

/// Answers by a challenge what only the user's next sign-in helps against.
pub(super) async fn layer(
    State(gate): State<Arc<Gate>>,
    Extension(trail): Extension<Arc<Trail>>,
    Extension(principal): Extension<Arc<Principal>>,
    mut request: Request,
    next: Next,
) -> Response {
    let needed = SignInNeeded::default();
    request.extensions_mut().insert(Arc::clone(&needed));
    let answer = next.run(request).await;
    let Some(sign_in) = needed.get() else { return answer };
    match challenge(&gate, &principal, sign_in).await {
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
        SignIn::Satisfying(_) => "insufficient_claims",
    };
    Some((challenge, reason))
}
