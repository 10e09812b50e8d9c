//! May they? Calling a tool takes a grant; everything else is open to every authenticated caller and shows no more than
//! the grants allow.
//!
//! A missing scope is a challenge that the client can meet, a missing authentication context one that it can meet if it
//! said so, and so is a sign-in without which the caller's groups cannot be learnt. A missing role or group is nothing
//! that a client could acquire by another token request, and neither is the lifting of a deny, so the answer is a 403
//! without a challenge (RFC 6750 would loop), whose body is a JSON-RPC error that says what is missing.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use mcp_entra_policy::{BuiltInTool, CallerKind, Decision, GraphAccess, Groups, Refusal, Ways, built_in_tool};
use serde_json::{Value, json};

use super::Gate;
use super::answer::{self, code};
use super::message::{Message, Method};
use super::sign_in;
use crate::audit::{Outcome, Rule, Trail};
use crate::entra::{ClaimsChallenge, SignIn};
use crate::groups::Learnt;
use crate::policy::Permissions;
use crate::token::Principal;

/// Lets granted calls in: the request carries the caller's [`Permissions`](crate::policy::Permissions) from here on, and
/// a call as whom it may reach Graph ([`GraphAccess`](mcp_entra_policy::GraphAccess)).
pub(super) async fn layer(
    State(gate): State<Arc<Gate>>,
    Extension(trail): Extension<Arc<Trail>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(message): Extension<Arc<Message>>,
    mut request: Request,
    next: Next,
) -> Response {
    let permissions = gate.policy.permissions(Arc::clone(principal.caller()));
    let (permissions, learnt) = with_groups(&gate, &principal, &message, permissions).await;
    // Whatever the groups would decide: the client can bring about that they are learnt.
    if let Some(Err(unlearnt)) = &learnt
        && let Some(sign_in) = &unlearnt.sign_in
        && let Some((challenge, reason)) = sign_in::challenge(&gate, &principal, sign_in).await
    {
        trail.decided(Outcome::Refused(reason));
        return challenge;
    }
    if let Method::CallTool { tool: name } = &message.method {
        match offered(&gate, name) {
            // rmcp answers -32602, as the specification has it: there is nothing to be allowed.
            None => trail.decided(Outcome::Refused("unknown_tool")),
            Some(tool) => match permissions.decide(tool) {
                Decision::Allowed { mapping, grant, graph } => {
                    trail.decided(Outcome::Granted(Rule::grant(&mapping, &grant)));
                    request.extensions_mut().insert(graph);
                }
                Decision::Refused(refusal) => {
                    trail.decided(outcome(&refusal));
                    return Refused {
                        gate: &gate,
                        trail: &trail,
                        principal: &principal,
                        message: &message,
                        tool,
                        learnt,
                    }
                    .answer(&refusal)
                    .await;
                }
            },
        }
    }
    trail.decided(Outcome::Open);
    request.extensions_mut().insert(permissions);
    next.run(request).await
}

/// Learns the caller's groups where the answer depends on them.
async fn with_groups(
    gate: &Gate,
    principal: &Principal,
    message: &Message,
    permissions: Permissions,
) -> (Permissions, Option<Learnt>) {
    let graph = &gate.configuration.graph;
    let ids = match &message.method {
        Method::CallTool { tool } => permissions.groups_to_learn(offered(gate, tool), graph.access),
        Method::ListTools => {
            let tools = graph.tools.iter().filter_map(|name| built_in_tool(name));
            permissions.groups_to_learn(tools, GraphAccess::OnBehalfOf)
        }
        _ => None,
    };
    let (Some(directory), Some(ids)) = (&gate.groups, ids) else {
        return (permissions, None);
    };
    let learnt = directory.among(principal, &ids).await;
    (permissions.with_groups(learnt.as_deref().ok()), Some(learnt))
}

fn offered(gate: &Gate, name: &str) -> Option<&'static BuiltInTool> {
    let offered = gate.configuration.graph.tools.iter().any(|tool| tool == name);
    built_in_tool(name).filter(|_| offered)
}

fn outcome(refusal: &Refusal) -> Outcome {
    match refusal {
        Refusal::Denied { mapping, deny, .. } => Outcome::RefusedBy("denied", Rule::deny(mapping, deny)),
        Refusal::ScopesMissing { mapping, grant, .. } => {
            Outcome::RefusedBy("insufficient_scope", Rule::grant(mapping, grant))
        }
        Refusal::AuthenticationContextMissing { mapping, grant, .. } => {
            Outcome::RefusedBy("insufficient_claims", Rule::grant(mapping, grant))
        }
        Refusal::NotGranted(_) => Outcome::Refused("not_granted"),
    }
}

/// A call that is refused.
struct Refused<'a> {
    gate: &'a Gate,
    trail: &'a Trail,
    principal: &'a Principal,
    message: &'a Message,
    tool: &'a BuiltInTool,
    /// The caller's groups, where Graph was asked for them.
    learnt: Option<Learnt>,
}

impl Refused<'_> {
    async fn answer(&self, refusal: &Refusal) -> Response {
        match refusal {
            Refusal::Denied { mapping, deny, groups_unknown, registration_unknown } => {
                let hidden = if *groups_unknown && self.groups_hidden() { GROUPS_HIDDEN } else { "" };
                let unknown = hidden.to_owned() + &self.unknown(*groups_unknown, *registration_unknown);
                let why = format!(
                    "It is denied by {deny} of the ClusterMcpRoleMapping {mapping}, whoever grants it: ask the platform \
                     team.{unknown}"
                );
                self.forbidden(&why, json!({ "mapping": mapping.to_string(), "deny": deny }))
            }
            Refusal::ScopesMissing { scopes, .. } => {
                let named = Vec::from_iter(scopes.iter().map(String::as_str)).join(", ");
                let text = format!("{} takes the scopes {named}: ask for a token with all of them", self.tool.name);
                self.gate.challenge.insufficient_scope(&text, scopes)
            }
            Refusal::AuthenticationContextMissing { context, .. } => self.step_up(context).await,
            Refusal::NotGranted(ways) => {
                let data = json!({
                    "roles": ways.roles, "groups": ways.groups, "groupsUnknown": ways.groups_unknown,
                    "registrationUnknown": ways.registration_unknown,
                });
                let unknown = self.unknown(ways.groups_unknown, ways.registration_unknown);
                let allowing = what_would_allow(self.principal.caller().kind, ways, self.groups_hidden());
                self.forbidden(&(allowing + &unknown), data)
            }
        }
    }

    async fn step_up(&self, context: &str) -> Response {
        let text = format!(
            "{} takes a sign-in that satisfies the authentication context {context} of Conditional Access",
            self.tool.name
        );
        let sign_in = SignIn::Satisfying(ClaimsChallenge::authentication_context(context));
        if let Some(challenge) = self.gate.challenge.sign_in(self.principal, &sign_in, &text).await {
            return challenge;
        }
        let why = match self.principal.accepts_claims_challenge() {
            true => "This client was asked for it and came back without: sign in again in the client, and satisfy it.",
            false => "This client cannot ask for that (it does not declare the capability cp1): use a client that can.",
        };
        let text = format!("{text}. {why}");
        answer::tool_error(self.id(), &text)
    }

    /// Names the facts that could not be seen of the caller, and the next step.
    fn unknown(&self, groups: bool, registration: bool) -> String {
        let groups = if groups { self.groups_unknown() } else { String::new() };
        let client_id = &self.gate.configuration.entra.client_id;
        let registration = registration.then(|| {
            format!(
                " The audience of your token does not prove which app registration it was issued for, and a rule holds for \
                 one registration only: ask for a token whose audience is a client id, such as {client_id}."
            )
        });
        groups + &registration.unwrap_or_default()
    }

    fn groups_unknown(&self) -> String {
        match &self.learnt {
            Some(Err(unlearnt)) => {
                format!(" In which groups you are could not be learnt, so that none counts: {}", unlearnt.why)
            }
            Some(Ok(_)) => String::new(),
            None => GROUPS_UNKNOWN.to_owned(),
        }
    }

    /// Says if Graph has told groups, but perhaps not all.
    fn groups_hidden(&self) -> bool {
        matches!(&self.learnt, Some(Ok(learnt)) if matches!(**learnt, Groups::AtLeast(_)))
    }

    fn forbidden(&self, why: &str, mut data: Value) -> Response {
        let server = &self.gate.configuration.server;
        let text = format!(
            "You may not call {} on the MCP server {}/{}. {why}",
            self.tool.name, server.namespace, server.name
        );
        if let Some(data) = data.as_object_mut() {
            data.insert("tool".to_owned(), json!(self.tool.name));
            data.insert("requestId".to_owned(), json!(self.trail.request_id()));
        }
        answer::json_rpc_error(StatusCode::FORBIDDEN, self.id(), code::FORBIDDEN, &text, Some(data))
    }

    fn id(&self) -> &Value {
        self.message.id.as_ref().unwrap_or(&Value::Null)
    }
}

const GROUPS_UNKNOWN: &str = " Your token does not say which groups you are in: its groups claim is absent, lists names \
     instead of object ids, or there are too many groups. So membership in a group cannot be seen: ask for the object ids of \
     the groups assigned to the application to be emitted (groupMembershipClaims ApplicationGroup), or for a role.";

const GROUPS_HIDDEN: &str = " Microsoft Graph shows this server no groups with hidden membership, so that a group which it \
     does not show may be one that you are in: an administrator consents to the delegated permission Member.Read.Hidden for \
     the app registration of the server.";

fn what_would_allow(kind: CallerKind, ways: &Ways, groups_hidden: bool) -> String {
    let roles = ways.roles.iter().map(|role| format!("the app role {role}"));
    let hidden = if groups_hidden { " (a hidden one does not count here)" } else { "" };
    let groups = ways.groups.iter().map(|group| format!("membership in the group {group}{hidden}"));
    let all = Vec::from_iter(roles.chain(groups)).join(" or ");
    match kind {
        CallerKind::Application if all.is_empty() => {
            "It is not granted to this application: ask the platform team for \
             a grant to it, or call it with a token of a signed-in user."
                .to_owned()
        }
        CallerKind::Application => format!(
            "It takes {all}: ask an administrator of Entra to assign it to the application, then ask for a new token."
        ),
        CallerKind::User if all.is_empty() => {
            "No role mapping grants it to tokens like yours: ask the platform team for an McpRoleMapping.".to_owned()
        }
        CallerKind::User => {
            format!("It takes {all}: ask an administrator of Entra for it, then sign in again to get a new token.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(roles: &[&str], groups: &[&str], groups_unknown: bool) -> Ways {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Ways { roles: set(roles), groups: set(groups), groups_unknown, registration_unknown: false }
    }

    #[test]
    fn a_refusal_names_every_way_in() {
        let text = what_would_allow(CallerKind::User, &ways(&["Mcp.Admin", "Mcp.Reader"], &["Sales"], false), false);
        assert!(text.starts_with(
            "It takes the app role Mcp.Admin or the app role Mcp.Reader or membership in the group Sales:"
        ));
    }

    #[test]
    fn a_group_whose_members_graph_may_hide_is_named_with_half_a_sentence_about_it() {
        let text = what_would_allow(CallerKind::User, &ways(&[], &["Sales"], true), true);
        assert!(
            text.starts_with("It takes membership in the group Sales (a hidden one does not count here):"),
            "{text}"
        );
    }

    #[test]
    fn a_tool_that_nobody_may_call_is_said_to_be_so() {
        assert!(what_would_allow(CallerKind::User, &ways(&[], &[], false), false).contains("McpRoleMapping"));
    }

    #[test]
    fn an_application_is_told_of_roles_that_are_granted_to_applications_alone() {
        assert!(what_would_allow(CallerKind::Application, &Ways::default(), false).contains("signed-in user"));
        let text = what_would_allow(CallerKind::Application, &ways(&["Mcp.Reader"], &[], false), false);
        assert!(text.contains("the app role Mcp.Reader") && text.contains("assign it to the application"), "{text}");
    }
}
