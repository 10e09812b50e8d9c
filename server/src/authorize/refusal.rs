//! Refused calls as data, and their English texts. A text ends with the next step.

use mcp_entra_policy::{CallerKind, Refusal as Cause, ServerConfiguration, Ways};
use serde_json::{Value, json};

use super::GroupSource;
use super::json_rpc::{ErrorValue, code};
use crate::audit::{Outcome, Rule, Target};

/// A refused use of a tool, a prompt or a resource, with every fact for its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The tool, prompt or resource.
    pub target: Target,
    /// The decision of the policy.
    pub cause: Cause,
    /// The kind of the caller.
    pub caller: CallerKind,
    /// The source of the caller's groups.
    pub groups: GroupSource,
}

impl Refusal {
    /// Returns the outcome for the audit log.
    pub fn outcome(&self) -> Outcome {
        match &self.cause {
            Cause::Denied { mapping, deny, .. } => Outcome::RefusedBy("denied", Rule::deny(mapping, deny)),
            Cause::ScopesMissing { mapping, grant, .. } => {
                Outcome::RefusedBy("insufficient_scope", Rule::grant(mapping, grant))
            }
            Cause::AuthenticationContextMissing { mapping, grant, .. } => {
                Outcome::RefusedBy("insufficient_claims", Rule::grant(mapping, grant))
            }
            Cause::NotGranted(_) => Outcome::Refused("not_granted"),
        }
    }

    /// Returns the text for the caller.
    pub fn text(&self, configuration: &ServerConfiguration) -> String {
        let target = &self.target;
        match &self.cause {
            Cause::Denied { mapping, deny, groups_unknown, registration_unknown } => {
                let hidden = if *groups_unknown && self.groups_hidden() { GROUPS_HIDDEN } else { "" };
                let unknown = self.unknown(configuration, *groups_unknown, *registration_unknown);
                let why = format!(
                    "The deny {deny} of the ClusterMcpRoleMapping {mapping} forbids it and overrides every grant: ask the platform \
                     team.{hidden}{unknown}"
                );
                self.forbidden(configuration, &why)
            }
            Cause::ScopesMissing { scopes, .. } => {
                let named = Vec::from_iter(scopes.iter().map(String::as_str)).join(", ");
                format!("{target} requires the scopes {named}: request a token with all of them")
            }
            Cause::AuthenticationContextMissing { context, .. } => {
                format!(
                    "{target} requires a sign-in that satisfies the authentication context {context} of Conditional Access"
                )
            }
            Cause::NotGranted(ways) => {
                let unknown = self.unknown(configuration, ways.groups_unknown, ways.registration_unknown);
                let allowing = what_would_allow(self.caller, ways, self.groups_hidden());
                self.forbidden(configuration, &(allowing + &unknown))
            }
        }
    }

    /// Returns the text for a client that cannot request another sign-in, or returned without it.
    pub fn text_without_sign_in(&self, configuration: &ServerConfiguration, accepts_claims_challenge: bool) -> String {
        let why = match accepts_claims_challenge {
            true => {
                "This client was asked for it, but the new token does not satisfy it: sign in again in the client and satisfy it."
            }
            false => "This client cannot request it (it does not declare the capability cp1): use a client that can.",
        };
        format!("{}. {why}", self.text(configuration))
    }

    /// Returns the JSON-RPC error for this request: the text, and facts for programs.
    pub fn error(&self, configuration: &ServerConfiguration, request_id: &str) -> ErrorValue {
        let mut data = self.facts();
        if let Some(data) = data.as_object_mut() {
            data.insert(self.target.kind().to_owned(), json!(self.target.name()));
            data.insert("requestId".to_owned(), json!(request_id));
        }
        ErrorValue { code: code::FORBIDDEN, message: self.text(configuration), data: Some(data) }
    }

    fn facts(&self) -> Value {
        match &self.cause {
            Cause::Denied { mapping, deny, .. } => json!({ "mapping": mapping.to_string(), "deny": deny }),
            Cause::ScopesMissing { scopes, .. } => json!({ "scopes": scopes }),
            Cause::AuthenticationContextMissing { context, .. } => json!({ "authenticationContext": context }),
            Cause::NotGranted(ways) => json!({
                "roles": ways.roles, "groups": ways.groups, "groupsUnknown": ways.groups_unknown,
                "registrationUnknown": ways.registration_unknown,
            }),
        }
    }

    fn forbidden(&self, configuration: &ServerConfiguration, why: &str) -> String {
        let server = &configuration.server;
        let verb = match &self.target {
            Target::Tool(_) => "call",
            Target::Prompt(_) => "get",
            Target::Resource(_) => "read",
        };
        let (target, namespace, name) = (&self.target, &server.namespace, &server.name);
        format!("You may not {verb} {target} on the MCP server {namespace}/{name}. {why}")
    }

    /// Explains which facts about the caller are unknown, with the next step.
    fn unknown(&self, configuration: &ServerConfiguration, groups: bool, registration: bool) -> String {
        let groups = if groups { self.groups_unknown() } else { String::new() };
        let client_id = &configuration.entra.client_id;
        let registration = registration.then(|| {
            format!(
                " The audience of your token does not prove which app registration it was issued for, and a rule applies to \
                 only one registration: request a token whose audience is a client id, such as {client_id}."
            )
        });
        groups + &registration.unwrap_or_default()
    }

    fn groups_unknown(&self) -> String {
        match &self.groups {
            GroupSource::Unlearnt { why } => {
                format!(" Your groups could not be looked up, so none of them counts: {why}")
            }
            GroupSource::Learnt { .. } => String::new(),
            GroupSource::Token | GroupSource::Directory { .. } => GROUPS_UNKNOWN.to_owned(),
        }
    }

    /// True if the directory returned groups, but perhaps not all.
    fn groups_hidden(&self) -> bool {
        self.groups == GroupSource::Learnt { hidden: true }
    }
}

const GROUPS_UNKNOWN: &str = " Your token does not say which groups you are in: its groups claim is absent, lists names \
     instead of object ids, or there are too many groups. So your group memberships are unknown: ask an administrator to emit the object ids of \
     the groups assigned to the application (groupMembershipClaims ApplicationGroup), or to assign you a role.";

const GROUPS_HIDDEN: &str = " Microsoft Graph does not show this server groups with hidden membership, so you may be in a group that it \
     does not show: ask an administrator to consent to the delegated permission Member.Read.Hidden for \
     the app registration of the server.";

fn what_would_allow(kind: CallerKind, ways: &Ways, groups_hidden: bool) -> String {
    let roles = ways.roles.iter().map(|role| format!("the app role {role}"));
    let hidden = if groups_hidden { " (it does not count here if its membership is hidden)" } else { "" };
    let groups = ways.groups.iter().map(|group| format!("membership in the group {group}{hidden}"));
    let all = Vec::from_iter(roles.chain(groups)).join(" or ");
    match kind {
        CallerKind::Application if all.is_empty() => {
            "It is not granted to this application: ask the platform team for \
             a grant to the application, or call it with a token of a signed-in user."
                .to_owned()
        }
        CallerKind::Application => format!(
            "It requires {all}: ask an administrator of Entra to assign it to the application, then request a new token."
        ),
        CallerKind::User if all.is_empty() => {
            "No role mapping grants it to tokens like yours: ask the platform team for an McpRoleMapping.".to_owned()
        }
        CallerKind::User => {
            format!("It requires {all}: ask an administrator of Entra for it, then sign in again to get a new token.")
        }
    }
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::MappingReference;

    use super::*;

    fn ways(roles: &[&str], groups: &[&str], groups_unknown: bool) -> Ways {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Ways { roles: set(roles), groups: set(groups), groups_unknown, registration_unknown: false }
    }

    #[test]
    fn a_refusal_names_every_role_and_group_that_would_allow_the_call() {
        let text = what_would_allow(CallerKind::User, &ways(&["Mcp.Admin", "Mcp.Reader"], &["Sales"], false), false);
        assert!(text.starts_with(
            "It requires the app role Mcp.Admin or the app role Mcp.Reader or membership in the group Sales:"
        ));
    }

    #[test]
    fn a_group_that_may_have_hidden_members_is_named_with_a_note() {
        let text = what_would_allow(CallerKind::User, &ways(&[], &["Sales"], true), true);
        assert!(
            text.starts_with(
                "It requires membership in the group Sales (it does not count here if its membership is hidden):"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_refusal_without_any_grant_names_mcp_role_mappings() {
        assert!(what_would_allow(CallerKind::User, &ways(&[], &[], false), false).contains("McpRoleMapping"));
    }

    #[test]
    fn the_text_for_an_application_names_its_roles_or_a_signed_in_user() {
        assert!(what_would_allow(CallerKind::Application, &Ways::default(), false).contains("signed-in user"));
        let text = what_would_allow(CallerKind::Application, &ways(&["Mcp.Reader"], &[], false), false);
        assert!(text.contains("the app role Mcp.Reader") && text.contains("assign it to the application"), "{text}");
    }

    fn configuration() -> ServerConfiguration {
        serde_json::from_value(json!({
            "server": { "namespace": "productivity", "name": "graph" },
            "path": "/mcp",
            "entra": {
                "tenantId": "8f6b0000-0000-4000-8000-000000000001", "clientId": "1c2d0000-0000-4000-8000-000000000002",
                "authority": "https://login.microsoftonline.com", "audiences": [], "requiredScopes": [],
                "allowedClients": [], "tokenVersions": ["V2"], "groups": "Resolve",
            },
            "graph": {
                "baseUrl": "https://graph.microsoft.com", "scopes": [], "tools": [], "access": "OnBehalfOf",
            },
            "probe": { "intervalSeconds": 60 },
        }))
        .unwrap()
    }

    fn mapping() -> MappingReference {
        MappingReference { namespace: None, name: "guardrails".into() }
    }

    fn denied(groups_unknown: bool, registration_unknown: bool) -> Cause {
        Cause::Denied { mapping: mapping(), deny: "nobody".into(), groups_unknown, registration_unknown }
    }

    fn refusal(cause: Cause, groups: GroupSource) -> Refusal {
        Refusal { target: Target::Tool("write".into()), cause, caller: CallerKind::User, groups }
    }

    #[test]
    fn a_text_says_why_and_ends_with_the_next_step() {
        let why = "You may not call write on the MCP server productivity/graph. ";
        let no_groups = GroupSource::Unlearnt { why: "Graph is away; try again.".into() };
        let pinned = Ways { registration_unknown: true, ..Ways::default() };
        for (cause, groups, begin, end) in [
            (denied(false, false), GroupSource::Token, why, "overrides every grant: ask the platform team."),
            (denied(true, false), GroupSource::Token, why, "or to assign you a role."),
            (denied(true, false), GroupSource::Learnt { hidden: true }, why, "the app registration of the server."),
            (denied(true, false), no_groups.clone(), why, "so none of them counts: Graph is away; try again."),
            (denied(false, true), GroupSource::Token, why, "such as 1c2d0000-0000-4000-8000-000000000002."),
            (Cause::NotGranted(ways(&[], &["Sales"], true)), no_groups, why, "Graph is away; try again."),
            (Cause::NotGranted(ways(&["A"], &[], false)), GroupSource::Token, why, "again to get a new token."),
            (Cause::NotGranted(pinned), GroupSource::Token, why, "such as 1c2d0000-0000-4000-8000-000000000002."),
            (
                Cause::ScopesMissing { mapping: mapping(), grant: "g".into(), scopes: ["B".into(), "A".into()].into() },
                GroupSource::Token,
                "write requires the scopes A, B",
                ": request a token with all of them",
            ),
            (
                Cause::AuthenticationContextMissing { mapping: mapping(), grant: "g".into(), context: "c1".into() },
                GroupSource::Token,
                "write requires a sign-in",
                "the authentication context c1 of Conditional Access",
            ),
        ] {
            let text = refusal(cause, groups).text(&configuration());
            assert!(text.starts_with(begin) && text.ends_with(end), "{text}");
        }
    }

    #[test]
    fn the_text_without_a_sign_in_depends_on_the_clients_capability() {
        let cause = Cause::AuthenticationContextMissing { mapping: mapping(), grant: "g".into(), context: "c1".into() };
        let refusal = refusal(cause, GroupSource::Token);
        let texts = [true, false].map(|accepts| refusal.text_without_sign_in(&configuration(), accepts));
        let begin = refusal.text(&configuration()) + ". This client ";
        assert!(texts.iter().all(|text| text.starts_with(&begin)), "{texts:?}");
        assert!(texts[0].ends_with("and satisfy it.") && texts[1].ends_with("use a client that can."), "{texts:?}");
    }

    #[test]
    fn an_error_has_the_facts_for_programs() {
        let not_granted = Cause::NotGranted(ways(&["A"], &["Sales"], true));
        for (cause, facts) in [
            (denied(false, false), json!({ "mapping": "guardrails", "deny": "nobody" })),
            (
                not_granted,
                json!({
                    "roles": ["A"], "groups": ["Sales"], "groupsUnknown": true, "registrationUnknown": false,
                }),
            ),
        ] {
            let refusal = refusal(cause, GroupSource::Token);
            let error = refusal.error(&configuration(), "id");
            let mut expected = facts;
            expected["tool"] = json!("write");
            expected["requestId"] = json!("id");
            assert_eq!((error.code, error.data), (403, Some(expected)));
            assert_eq!(error.message, refusal.text(&configuration()));
        }
    }

    #[test]
    fn an_outcome_names_the_rule_that_refuses() {
        let (grant, context) = (String::from("g"), String::from("c1"));
        let by_grant = || Rule::grant(&mapping(), "g");
        for (cause, outcome) in [
            (denied(true, true), Outcome::RefusedBy("denied", Rule::deny(&mapping(), "nobody"))),
            (
                Cause::ScopesMissing { mapping: mapping(), grant: grant.clone(), scopes: [].into() },
                Outcome::RefusedBy("insufficient_scope", by_grant()),
            ),
            (
                Cause::AuthenticationContextMissing { mapping: mapping(), grant, context },
                Outcome::RefusedBy("insufficient_claims", by_grant()),
            ),
            (Cause::NotGranted(Ways::default()), Outcome::Refused("not_granted")),
        ] {
            assert_eq!(refusal(cause, GroupSource::Token).outcome(), outcome);
        }
    }
}
