//! May they? Calling a tool takes a grant; everything else is open to every authenticated caller and shows no more than
//! the grants allow.
//!
//! A missing role or group is nothing that a client could acquire by another token request, so the answer is a 403
//! without a challenge (RFC 6750 would loop), whose body is a JSON-RPC error that says what is missing.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use mcp_entra_policy::{BuiltInTool, CallerKind, Decision, Refusal, built_in_tool};
use serde_json::{Value, json};

use super::Gate;
use super::answer::{self, code};
use super::message::{Message, Method};
use crate::audit::{Outcome, Trail};
use crate::token::Principal;

/// Lets granted calls in: the request carries the caller's [`Permissions`](crate::policy::Permissions) from here on.
pub(super) async fn layer(
    State(gate): State<Arc<Gate>>,
    Extension(trail): Extension<Arc<Trail>>,
    Extension(principal): Extension<Arc<Principal>>,
    Extension(message): Extension<Arc<Message>>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = principal.caller();
    let kind = caller.kind;
    let permissions = gate.policy.permissions(caller);
    if let Method::CallTool { tool: name } = &message.method {
        match offered(&gate, name) {
            // rmcp answers -32602, as the specification has it: there is nothing to be allowed.
            None => trail.decided(Outcome::Refused("unknown_tool")),
            Some(tool) => match permissions.decide(tool) {
                Decision::Allowed { mapping, grant } => trail.decided(Outcome::Granted { mapping, grant }),
                Decision::Refused(refusal) => {
                    trail.decided(Outcome::Refused("not_granted"));
                    return refuse(&gate, &trail, &message, tool, kind, &refusal);
                }
            },
        }
    }
    trail.decided(Outcome::Open);
    request.extensions_mut().insert(permissions);
    next.run(request).await
}

fn offered(gate: &Gate, name: &str) -> Option<&'static BuiltInTool> {
    let offered = gate.configuration.graph.tools.iter().any(|tool| tool == name);
    built_in_tool(name).filter(|_| offered)
}

fn refuse(
    gate: &Gate,
    trail: &Trail,
    message: &Message,
    tool: &BuiltInTool,
    kind: CallerKind,
    refusal: &Refusal,
) -> Response {
    let server = &gate.configuration.server;
    let text = format!(
        "You may not call {} on the MCP server {}/{}. {}",
        tool.name,
        server.namespace,
        server.name,
        what_would_allow(kind, refusal)
    );
    let data = json!({
        "tool": tool.name,
        "roles": refusal.roles,
        "groups": refusal.groups,
        "groupsUnknown": refusal.groups_unknown,
        "requestId": trail.request_id(),
    });
    let id = message.id.as_ref().unwrap_or(&Value::Null);
    answer::json_rpc_error(StatusCode::FORBIDDEN, id, code::FORBIDDEN, &text, Some(data))
}

fn what_would_allow(kind: CallerKind, refusal: &Refusal) -> String {
    if kind == CallerKind::Application {
        return "It is granted to people, not to applications: call it with a token of a signed-in user.".to_owned();
    }
    let roles = refusal.roles.iter().map(|role| format!("the app role {role}"));
    let groups = refusal.groups.iter().map(|group| format!("membership in the group {group}"));
    let ways: Vec<String> = roles.chain(groups).collect();
    if ways.is_empty() {
        return "No role mapping grants it to anyone: ask the platform team for an McpRoleMapping.".to_owned();
    }
    let mut text = format!(
        "It takes {}: ask an administrator of Entra for it, then sign in again to get a new token.",
        ways.join(" or ")
    );
    if refusal.groups_unknown {
        text.push_str(
            " Your token does not say which groups you are in (the groups claim is absent, or there are too many), so \
             that membership in a group cannot be seen: ask for the groups assigned to the application to be emitted \
             (groupMembershipClaims ApplicationGroup), or for a role.",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(roles: &[&str], groups: &[&str], groups_unknown: bool) -> Refusal {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Refusal { roles: set(roles), groups: set(groups), groups_unknown }
    }

    #[test]
    fn a_refusal_names_every_way_in() {
        let text = what_would_allow(CallerKind::User, &refusal(&["Mcp.Admin", "Mcp.Reader"], &["Sales"], false));
        assert!(text.starts_with(
            "It takes the app role Mcp.Admin or the app role Mcp.Reader or membership in the group Sales:"
        ));
        assert!(!text.contains("groupMembershipClaims"));
    }

    #[test]
    fn unknown_groups_are_said_to_be_the_reason() {
        let text = what_would_allow(CallerKind::User, &refusal(&[], &["Sales"], true));
        assert!(text.contains("does not say which groups you are in"));
    }

    #[test]
    fn a_tool_that_nobody_may_call_is_said_to_be_so() {
        assert!(what_would_allow(CallerKind::User, &refusal(&[], &[], false)).contains("McpRoleMapping"));
    }

    #[test]
    fn an_application_is_not_told_to_get_a_role_that_would_not_help() {
        let text = what_would_allow(CallerKind::Application, &refusal(&["Mcp.Reader"], &[], false));
        assert!(!text.contains("Mcp.Reader") && text.contains("signed-in user"));
    }
}
