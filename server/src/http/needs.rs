//! Needs of an answer: another sign-in of the user, or a retry later. A tool cannot set an HTTP status, so it records
//! its need, and this stage turns the answer into a challenge or a 503.
//!
//! The tool's own answer remains if the client cannot meet a challenge or was already asked the same. It describes the
//! next step in words.

use std::time::Duration;

use axum::response::Response;
use moka::future::Cache;

use super::{Gate, answer};
use crate::audit::Trail;
use crate::entra::SignIn;
use crate::offer::Lack;
use crate::protocol::{Exchange, Need};
use crate::token::{Principal, TokenDigest};

const DESCRIPTION: &str =
    "Microsoft Entra ID requires another sign-in of the user before this server may act on the user's behalf";

/// The audit reason if the session store does not answer.
pub(super) const STORE_AWAY: &str = "session_store_unavailable";

/// The audit reason if the backend does not answer.
const BACKEND_AWAY: &str = "backend_unavailable";

/// Time for which an undelivered challenge is kept. After it, the next call finds the need again.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
const REMEMBERED: u64 = 10_000;

/// Challenges that could not be sent because the answer was already a stream. The next call with the token gets them.
pub(super) struct Pending(Cache<TokenDigest, SignIn>);

impl Pending {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build())
    }
}

/// Answers with a challenge if the user must sign in, or with 503 if a retry may succeed soon.
pub(super) async fn stage(gate: &Gate, trail: &Trail, exchange: &Exchange, need: Option<&Need>) -> Option<Response> {
    let (better, reason) = match need? {
        Need::SignIn(sign_in) => challenge(gate, &exchange.principal, sign_in).await?,
        Need::Patience(Lack::SessionStore, text) => (answer::try_later(text), STORE_AWAY),
        Need::Patience(Lack::Backend, text) => (answer::try_later(text), BACKEND_AWAY),
    };
    trail.challenged(reason);
    Some(better)
}

/// Records the need of a call that is answered with a stream.
pub(super) async fn remember(gate: &Gate, exchange: &Exchange, need: Option<Need>) {
    if let (Some(Need::SignIn(sign_in)), Principal::User(user)) = (need, &*exchange.principal) {
        gate.answers.pending.0.insert(user.assertion.digest(), sign_in).await;
    }
}

/// Returns the challenge that an earlier call of this token could not deliver.
pub(super) async fn pending(gate: &Gate, trail: &Trail, exchange: &Exchange) -> Option<Response> {
    let Principal::User(user) = &*exchange.principal else { return None };
    let sign_in = gate.answers.pending.0.remove(&user.assertion.digest()).await?;
    stage(gate, trail, exchange, Some(&Need::SignIn(sign_in))).await
}

/// Returns the challenge for this sign-in and its reason, if the client can meet it and was not already asked the
/// same.
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
