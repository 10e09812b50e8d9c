//! The verdict about the message, in the way of HTTP.
//!
//! A missing scope is a challenge that the client can meet. A missing authentication context is one that it can meet if it
//! said so, and so is a sign-in without which the caller's groups cannot be learnt. A missing role or group is nothing
//! that a client could acquire by another token request, and neither is the lifting of a deny. So the answer is a 403
//! without a challenge (RFC 6750 would loop), whose body is a JSON-RPC error that says what is missing.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mcp_entra_policy::Refusal as Cause;

use super::answer::{self, Refusal};
use super::{Gate, sign_in};
use crate::audit::{Outcome, Trail};
use crate::authorize::json_rpc;
use crate::authorize::{self, Message, Permissions, Verdict, judge};
use crate::entra::{ClaimsChallenge, SignIn};
use crate::offer::Unavailable;
use crate::protocol::{Exchange, Granted, SignInNeeded, Target};
use crate::token::Principal;

/// Judges the message, and asks for the caller's groups if the verdict depends on them.
pub(super) async fn stage(
    gate: &Gate,
    trail: &Trail,
    principal: &Arc<Principal>,
    message: &Message,
) -> Result<Exchange, Refusal> {
    let offered = gate.offer.snapshot(principal).await.map_err(unavailable)?;
    let mut permissions = gate.policy.permissions(Arc::clone(principal.caller()));
    if gate.groups.is_some() {
        permissions = permissions.with_directory(gate.configuration.graph.access);
    }
    let verdict = match judge(&permissions, message, &offered) {
        Verdict::NeedGroups(ids) => {
            permissions = with_groups(gate, principal, permissions, &ids).await?;
            judge(&permissions, message, &offered)
        }
        verdict => verdict,
    };
    let (outcome, granted) = match verdict {
        Verdict::Allowed { tool, rule, graph } => {
            (Outcome::Granted(rule), Some(Granted { target: Target::Tool(tool), access: graph }))
        }
        Verdict::Open => (Outcome::Open, None),
        // rmcp answers -32602, as the specification has it.
        Verdict::UnknownTool => (Outcome::Refused("unknown_tool"), None),
        Verdict::NeedGroups(_) => return Err(defect()),
        Verdict::Refused(refusal) => {
            let response = Refused { gate, trail, principal, message }.answer(&refusal).await;
            return Err(Refusal::of(refusal.outcome(), response));
        }
    };
    trail.decided(outcome);
    let (principal, sign_in) = (Arc::clone(principal), SignInNeeded::default());
    Ok(Exchange { principal, permissions, offered, granted, sign_in })
}

/// The same permissions, once the directory has answered. Refuses where the client can bring about that it can answer,
/// whatever the groups would decide.
async fn with_groups(
    gate: &Gate,
    principal: &Principal,
    permissions: Permissions,
    ids: &BTreeSet<String>,
) -> Result<Permissions, Refusal> {
    let directory = gate.groups.as_ref().ok_or_else(defect)?;
    match directory.among(principal, ids).await {
        Ok(groups) => Ok(permissions.with_learnt(Ok(&groups))),
        Err(unlearnt) => {
            if let Some(sign_in) = &unlearnt.sign_in
                && let Some((challenge, reason)) = sign_in::challenge(gate, principal, sign_in).await
            {
                return Err(Refusal::new(reason, challenge));
            }
            Ok(permissions.with_learnt(Err(&unlearnt.why)))
        }
    }
}

/// A stage before this one, or [`judge`], broke its promise.
fn unavailable(error: Unavailable) -> Refusal {
    Refusal::new("offer_unavailable", answer::try_later(&error.to_string()))
}

fn defect() -> Refusal {
    let text = "the groups of the caller were asked for in vain; report this defect to the developers of this server";
    Refusal::unjudged(answer::problem(StatusCode::INTERNAL_SERVER_ERROR, text))
}

/// A refused call, about to be answered.
struct Refused<'a> {
    gate: &'a Gate,
    trail: &'a Trail,
    principal: &'a Principal,
    message: &'a Message,
}

impl Refused<'_> {
    async fn answer(&self, refusal: &authorize::Refusal) -> Response {
        let (configuration, challenge) = (&self.gate.configuration, &self.gate.challenge);
        match &refusal.cause {
            Cause::Denied { .. } | Cause::NotGranted(_) => {
                let error = refusal.error(configuration, self.trail.request_id());
                answer::json_rpc_error(StatusCode::FORBIDDEN, self.message.answer_id(), &error)
            }
            Cause::ScopesMissing { scopes, .. } => challenge.insufficient_scope(&refusal.text(configuration), scopes),
            Cause::AuthenticationContextMissing { context, .. } => self.step_up(refusal, context).await,
        }
    }

    async fn step_up(&self, refusal: &authorize::Refusal, context: &str) -> Response {
        let configuration = &self.gate.configuration;
        let sign_in = SignIn::Satisfying(ClaimsChallenge::authentication_context(context));
        let text = refusal.text(configuration);
        if let Some(challenge) = self.gate.challenge.sign_in(self.principal, &sign_in, &text).await {
            return challenge;
        }
        let text = refusal.text_without_sign_in(configuration, self.principal.accepts_claims_challenge());
        Json(json_rpc::tool_error(self.message.answer_id(), &text)).into_response()
    }
}
