//! The verdict on the message, as an HTTP answer.
//!
//! A client can meet a challenge about a missing scope. If it declared so, it can also meet one about an
//! authentication context, or about a sign-in for a lookup of groups.
//!
//! A new token does not bring a missing role or group, and does not lift a deny. So the answer is a 403 without a
//! challenge (with one, clients of RFC 6750 would loop). Its body is a JSON-RPC error that says what is missing.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mcp_entra_policy::Refusal as Cause;
use serde_json::json;

use super::answer::{self, Refusal};
use super::{Gate, needs};
use crate::audit::{Outcome, Target, Trail};
use crate::authorize::json_rpc::{self, ErrorValue, code};
use crate::authorize::{self, Filter, Message, Meta, Method, Permissions, Verdict, judge};
use crate::offer::{Offered, Unavailable};
use crate::protocol::{Exchange, Revision};
use crate::token::Principal;

/// Judges the message, and looks up the caller's groups if the verdict depends on them. Returns the outcome for the
/// audit log and the facts for the protocol.
pub(super) async fn stage(
    gate: &Gate,
    trail: &Trail,
    principal: &Arc<Principal>,
    message: &Message,
    revision: Revision,
) -> Result<(Exchange, Outcome), Refusal> {
    let offered = match message.method.depends_on_offer() {
        true => match gate.offer.snapshot(principal).await {
            Ok(offered) => offered,
            Err(error) => return Err(unavailable(gate, principal, error).await),
        },
        false => Arc::default(),
    };
    let (permissions, verdict) = judged(gate, principal, message, &offered).await?;
    let (outcome, granted) = match verdict {
        Verdict::Allowed { rule, graph } => (Outcome::Granted(rule), Some(graph)),
        Verdict::Open => (Outcome::Open, None),
        Verdict::NotOffered => return Err(not_offered(message, revision)),
        Verdict::NeedGroups(_) => return Err(defect()),
        Verdict::Refused(refusal) => {
            let refused = Refused { gate, trail, principal, message };
            return Err(refused.record(&refusal).await);
        }
    };
    let principal = Arc::clone(principal);
    Ok((Exchange { principal, permissions, offered, granted, revision, asks: None }, outcome))
}

/// Returns the present permissions of a client that listens, also to these resources. Groups count as far as they are available, because a
/// stream cannot ask for a sign-in.
pub(super) async fn permissions_to_listen(
    gate: &Gate,
    principal: &Principal,
    (offered, uris): (&Offered, &[String]),
) -> Permissions {
    let permissions = gate.policy.permissions(Arc::clone(principal.caller()));
    let Some(directory) = &gate.groups else { return permissions };
    let permissions = permissions.with_directory(gate.configuration.graph.access);
    let filter = Filter { uris: uris.to_vec(), ..Filter::default() };
    let message = Message { id: None, method: Method::Listen(filter), meta: Meta::default() };
    match judge(&permissions, &message, offered) {
        Verdict::NeedGroups(ids) => match directory.among(principal, &ids).await {
            Ok(groups) => permissions.with_learnt(Ok(&groups)),
            Err(unlearnt) => permissions.with_learnt(Err(&unlearnt.why)),
        },
        _ => permissions,
    }
}

/// Returns the verdict on a message and the present permissions behind it.
async fn judged(
    gate: &Gate,
    principal: &Principal,
    message: &Message,
    offered: &Offered,
) -> Result<(Permissions, Verdict), Refusal> {
    let mut permissions = gate.policy.permissions(Arc::clone(principal.caller()));
    if gate.groups.is_some() {
        permissions = permissions.with_directory(gate.configuration.graph.access);
    }
    let verdict = match judge(&permissions, message, offered) {
        Verdict::NeedGroups(ids) => {
            permissions = with_groups(gate, principal, permissions, &ids).await?;
            judge(&permissions, message, offered)
        }
        verdict => verdict,
    };
    Ok((permissions, verdict))
}

/// Returns the answer about an item that is not offered: invalid params, as the specification requires.
fn not_offered(message: &Message, revision: Revision) -> Refusal {
    let target = message.method.target();
    let mut error = ErrorValue::new(code::INVALID_PARAMS, "it is not offered; use a list method to see the offer");
    if let Some(target) = &target {
        error.message = format!("{} not found", target.kind());
        error.data = target.uri().map(|uri| json!({ "uri": uri }));
        if target.uri().is_some() && !revision.is_modern() {
            error.code = code::RESOURCE_NOT_FOUND;
        }
    }
    let reason = target.as_ref().map_or("unknown_method", Target::not_offered);
    Refusal::new(reason, answer::json_rpc_error(StatusCode::OK, message.answer_id(), &error))
}

/// Adds the directory's answer to the permissions. Refuses if the client can make an answer possible, for example by
/// a sign-in, whatever the groups would decide.
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
                && let Some((challenge, reason)) = needs::challenge(gate, principal, sign_in).await
            {
                return Err(Refusal::new(reason, challenge));
            }
            if unlearnt.is_store_away {
                return Err(Refusal::new(needs::STORE_AWAY, answer::try_later(&unlearnt.why)));
            }
            Ok(permissions.with_learnt(Err(&unlearnt.why)))
        }
    }
}

async fn unavailable(gate: &Gate, principal: &Principal, error: Unavailable) -> Refusal {
    if let Some(sign_in) = &error.sign_in
        && let Some((challenge, reason)) = needs::challenge(gate, principal, sign_in).await
    {
        return Refusal::new(reason, challenge);
    }
    Refusal::new("offer_unavailable", answer::try_later(&error.to_string()))
}

/// Returns the answer if [`judge`] asks for groups twice, or without a directory.
fn defect() -> Refusal {
    let text = "the groups of the caller are not available; report this defect to the developers of this server";
    tracing::error!("{text}");
    Refusal::new("defect", answer::problem(StatusCode::INTERNAL_SERVER_ERROR, text))
}

/// A refused call before its answer.
struct Refused<'a> {
    gate: &'a Gate,
    trail: &'a Trail,
    principal: &'a Principal,
    message: &'a Message,
}

impl Refused<'_> {
    /// Records the refusal at once, and returns its future answer. So a client that hangs up early leaves an audit
    /// line.
    fn record(&self, refusal: &authorize::Refusal) -> impl Future<Output = Refusal> {
        self.trail.decided(refusal.outcome());
        async { Refusal::answer_only(self.answer(refusal).await) }
    }

    async fn answer(&self, refusal: &authorize::Refusal) -> Response {
        let (configuration, challenge) = (&self.gate.configuration, &self.gate.challenge);
        match &refusal.cause {
            Cause::Denied { .. } | Cause::NotGranted(_) => {
                let error = refusal.error(configuration, self.trail.request_id());
                answer::json_rpc_error(StatusCode::FORBIDDEN, self.message.answer_id(), &error)
            }
            Cause::ScopesMissing { scopes, .. } => {
                challenge.insufficient_scope(Some(self.principal), &refusal.text(configuration), scopes)
            }
            Cause::AuthenticationContextMissing { context, .. } => self.step_up(refusal, context).await,
        }
    }

    async fn step_up(&self, refusal: &authorize::Refusal, context: &str) -> Response {
        let configuration = &self.gate.configuration;
        let text = refusal.text(configuration);
        if let Some(challenge) = self.gate.challenge.authentication_context(self.principal, context, &text).await {
            return challenge;
        }
        let text = refusal.text_without_sign_in(configuration, self.principal.accepts_claims_challenge());
        let id = self.message.answer_id();
        match refusal.target {
            Target::Tool(_) => Json(json_rpc::tool_error(id, &text)).into_response(),
            // Only tools have results that report errors.
            Target::Prompt(_) | Target::Resource(_) => {
                answer::json_rpc_error(StatusCode::FORBIDDEN, id, &ErrorValue::new(code::FORBIDDEN, text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcp_entra_policy::{Caller, CallerKind, CompactSet, Groups, MappingReference, Registration};
    use serde_json::{Value, json};

    use super::*;
    use crate::authorize::GroupSource;
    use crate::http::fixture::{self, Lines, OfferAway};
    use crate::offer::{Input, JsonObject, Listed, Operation};
    use crate::token::Application;

    const SOON: Duration = Duration::from_secs(30);

    fn principal() -> Arc<Principal> {
        let caller = Caller {
            kind: CallerKind::Application,
            registration: Registration::Unknown,
            client_id: "client".into(),
            roles: CompactSet::default(),
            groups: Groups::Known(CompactSet::default()),
            scopes: CompactSet::default(),
            authentication_contexts: CompactSet::default(),
        };
        let (tenant_id, object_id) = ("tenant".into(), "object".into());
        Arc::new(Principal::Application(Application { tenant_id, object_id, caller: Arc::new(caller), expires_at: 0 }))
    }

    fn message(method: Method) -> Message {
        Message { id: Some(json!(7)), method, meta: Meta::default() }
    }

    fn call() -> Message {
        let operation = Operation::Tool { name: "echo".into(), arguments: JsonObject::new().into() };
        message(Method::Use { operation, input: Input::default() })
    }

    /// Returns the audit line of a request with these stages.
    async fn line(stages: impl AsyncFnOnce(&Gate, &Trail)) -> Value {
        let lines = Lines::default();
        let gate = fixture::gate(Arc::new(OfferAway), Arc::default(), lines.clone());
        let recording = gate.audit.begin("id".into(), SOON).await.unwrap();
        recording.trail().authenticated(principal());
        stages(&gate, &recording.trail()).await;
        drop(recording);
        gate.audit.end(SOON).await.unwrap();
        lines.only()
    }

    #[tokio::test]
    async fn a_refusal_is_recorded_although_the_client_hangs_up_before_its_answer() {
        let line = line(async |gate, trail| {
            let mapping = MappingReference { namespace: None, name: "mapping".into() };
            let refusal = authorize::Refusal {
                target: Target::Tool("echo".into()),
                cause: Cause::AuthenticationContextMissing { mapping, grant: "stepped".into(), context: "c1".into() },
                caller: CallerKind::Application,
                groups: GroupSource::Token,
            };
            drop(Refused { gate, trail, principal: &principal(), message: &call() }.record(&refusal));
        });
        let line = line.await;
        assert_eq!((&line["reason"], &line["rule"]["grant"]), (&json!("insufficient_claims"), &json!("stepped")));
    }

    #[tokio::test]
    async fn a_defect_has_its_line() {
        let line = line(async |_, trail| assert_eq!(defect().recorded(trail).status(), 500)).await;
        assert_eq!(line["reason"], "defect");
    }

    #[tokio::test]
    async fn an_unavailable_offer_fails_only_requests_that_need_it() {
        for method in
            [Method::Discover, Method::Ping, Method::SetLogLevel, Method::Notification("notifications/initialized")]
        {
            let message = message(method);
            let line = line(async |gate, trail| {
                let (_, outcome) =
                    stage(gate, trail, &principal(), &message, Revision::V2025_11_25).await.ok().unwrap();
                trail.decided(outcome);
            });
            assert_eq!(line.await["reason"], "authenticated", "{message:?}");
        }
        for message in [message(Method::List { of: Listed::Tools, cursor: None }), call()] {
            let line = line(async |gate, trail| {
                let refusal = stage(gate, trail, &principal(), &message, Revision::V2025_11_25).await.err().unwrap();
                assert_eq!(refusal.recorded(trail).status(), 503);
            });
            assert_eq!(line.await["reason"], "offer_unavailable", "{message:?}");
        }
    }
}
