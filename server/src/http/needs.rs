//! The things that an answer depends on: another sign-in of the user, or patience. A tool cannot set an HTTP status: it leaves in the
//! request what it needs, and here the answer becomes the challenge that the client can meet, or 503.
//!
//! Where the client cannot meet a challenge, or was asked the same already, the tool's own answer stands, which says in words
//! what to do.

use std::time::Duration;

use axum::response::Response;
use moka::future::Cache;

use super::{Gate, answer};
use crate::audit::Trail;
use crate::entra::SignIn;
use crate::offer::Lack;
use crate::protocol::{Exchange, Need};
use crate::token::{Principal, TokenDigest};

const DESCRIPTION: &str = "Microsoft Entra ID takes another sign-in of the user before this server may act for them";

/// The reason in the audit log where the store with the user's session does not answer.
pub(super) const STORE_AWAY: &str = "session_store_unavailable";

/// The reason where the backend does not answer.
const BACKEND_AWAY: &str = "backend_unavailable";

/// Time for which a sign-in is remembered that could not be asked for. After that, the call that needs it finds out anew.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
const REMEMBERED: u64 = 10_000;

/// Sign-ins that could not be asked for, since the answer was a stream already: the next call of the token is.
pub(super) struct Pending(Cache<TokenDigest, SignIn>);

impl Pending {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build())
    }
}

/// Answers by a challenge where only the user's next sign-in helps, and by 503 where the same call may work soon.
pub(super) async fn stage(gate: &Gate, trail: &Trail, exchange: &Exchange, need: Option<&Need>) -> Option<Response> {
    let (better, reason) = match need? {
        Need::SignIn(sign_in) => challenge(gate, &exchange.principal, sign_in).await?,
        Need::Patience(Lack::SessionStore, text) => (answer::try_later(text), STORE_AWAY),
        Need::Patience(Lack::Backend, text) => (answer::try_later(text), BACKEND_AWAY),
    };
    trail.challenged(reason);
    Some(better)
}

/// Remembers what a call needs that is answered by a stream.
pub(super) async fn remember(gate: &Gate, exchange: &Exchange, need: Option<Need>) {
    if let (Some(Need::SignIn(sign_in)), Principal::User(user)) = (need, &*exchange.principal) {
        gate.answers.pending.0.insert(user.assertion.digest(), sign_in).await;
    }
}

/// The challenge that an earlier call of this token could not be answered by.
pub(super) async fn pending(gate: &Gate, trail: &Trail, exchange: &Exchange) -> Option<Response> {
    let Principal::User(user) = &*exchange.principal else { return None };
    let sign_in = gate.answers.pending.0.remove(&user.assertion.digest()).await?;
    stage(gate, trail, exchange, Some(&Need::SignIn(sign_in))).await
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
