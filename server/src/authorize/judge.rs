//! The verdict on one message. The use of a tool, a prompt or a resource needs a grant. Every other method is open to
//! all authenticated callers, and its answer shows only granted items.

use std::collections::BTreeSet;

use mcp_entra_policy::{Decision, GraphAccess, Operation};

use super::{Message, Method, Permissions, Refusal};
use crate::audit::Rule;
use crate::offer::{CompletionReference, Listed, Offered, OfferedPrompt, OfferedTemplate};

/// The verdict on one message of one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A grant allows the use.
    Allowed {
        /// The grant.
        rule: Rule,
        /// The access to Graph that it gives.
        graph: GraphAccess,
    },
    /// Every authenticated caller may do this.
    Open,
    /// The named item is not offered, so there is nothing to allow.
    NotOffered,
    /// The use is denied, or no grant allows it.
    Refused(Refusal),
    /// The verdict depends on the caller's membership in these groups (object ids in lower case), which a directory
    /// can look up. It never occurs after [`Permissions::with_learnt`].
    NeedGroups(BTreeSet<String>),
}

/// Judges a message by the caller's permissions and the current offer.
pub fn judge(permissions: &Permissions, message: &Message, offered: &Offered) -> Verdict {
    let operation = match &message.method {
        Method::Use { operation, .. } => operation.offered(offered),
        Method::Complete(completing) => match &completing.reference {
            CompletionReference::Prompt(name) => offered.prompt(name).map(OfferedPrompt::operation),
            CompletionReference::Template(text) => offered.template(text).map(OfferedTemplate::operation),
        },
        Method::Subscribe { uri, .. } => offered.has_resource(uri).then_some(Operation::Resource(uri)),
        Method::List { of, .. } => return judge_list(permissions, offered.entries(*of)),
        Method::Listen(filter) => {
            let listed = Listed::ALL.into_iter().flat_map(|of| offered.entries(of));
            // Resources of a template are in no list.
            let uris = filter.uris.iter().filter(|uri| offered.has_resource(uri));
            return judge_list(permissions, listed.chain(uris.map(|uri| Operation::Resource(uri))));
        }
        Method::Initialize { .. }
        | Method::Discover
        | Method::Ping
        | Method::SetLogLevel
        | Method::Cancelled { .. }
        | Method::Notification(_)
        | Method::UnknownNotification => return Verdict::Open,
    };
    operation.map_or(Verdict::NotOffered, |operation| judge_use(permissions, operation))
}

fn judge_list<'a>(permissions: &Permissions, operations: impl IntoIterator<Item = Operation<'a>>) -> Verdict {
    permissions.groups_to_list(operations).map_or(Verdict::Open, Verdict::NeedGroups)
}

fn judge_use(permissions: &Permissions, operation: Operation<'_>) -> Verdict {
    if let Some(ids) = permissions.groups_to_use(operation) {
        return Verdict::NeedGroups(ids);
    }
    match permissions.decide(operation) {
        Decision::Allowed { mapping, grant, graph } => Verdict::Allowed { rule: Rule::grant(&mapping, &grant), graph },
        Decision::Refused(cause) => Verdict::Refused(Refusal {
            target: operation.into(),
            cause,
            caller: permissions.kind(),
            groups: permissions.groups().clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mcp_entra_policy::{
        Caller, CallerKind, CompactSet, CompiledPolicy, Deny, Grant, Groups, MappingReference, Pattern, Primitives,
        Refusal as Cause, Registration, Requirements, Subject,
    };
    use serde_json::json;
    use uuid::Uuid;

    use super::super::{Filter, GroupSource, Meta, PolicyInForce};
    use super::*;
    use crate::offer::{CompletionRequest, Input, JsonObject, OfferedResource, OfferedTool, Operation as Use};

    const SALES: &str = "00000000-0000-4000-8000-000000000005";
    const STAFF: &str = "00000000-0000-4000-8000-000000000006";

    fn mapping() -> MappingReference {
        MappingReference { namespace: None, name: "mapping".into() }
    }

    fn primitives(tools: &[&str]) -> Primitives {
        Primitives { tools: tools.iter().map(|tool| Pattern((*tool).into())).collect(), ..Primitives::default() }
    }

    fn role(role: &str) -> Subject {
        Subject::AppRole { role: role.into(), callers: [CallerKind::User].into() }
    }

    fn group(id: &str) -> Subject {
        Subject::Group { id: id.into(), display_name: None }
    }

    fn grant(name: &str, to: Subject, tools: &[&str]) -> Grant {
        Grant {
            mapping: mapping(),
            name: name.into(),
            registration: None,
            to: vec![to],
            require: Requirements::default(),
            graph: GraphAccess::OnBehalfOf,
            allow: primitives(tools),
        }
    }

    fn deny(name: &str, to: Subject, tools: &[&str]) -> Deny {
        Deny {
            mapping: mapping(),
            name: name.into(),
            registration: None,
            to: Some(vec![to]),
            forbid: primitives(tools),
        }
    }

    /// Readers may use tools that do not write; sales may write; staff may not read.
    fn policy() -> CompiledPolicy {
        let mut scoped = grant("scoped", role("Scoped"), &["write"]);
        scoped.require.scopes = ["Write".to_owned()].into();
        let mut stepped = grant("stepped", role("Stepped"), &["write"]);
        stepped.require.authentication_context = Some("c1".into());
        let readers = grant("readers", role("Reader"), &["*"]);
        let denies = vec![deny("staff", group(STAFF), &["read"])];
        CompiledPolicy {
            denies,
            grants: vec![readers, grant("sales", group(SALES), &["write"]), scoped, stepped],
            ..CompiledPolicy::default()
        }
    }

    fn permissions(policy: CompiledPolicy, role: &str, groups: Groups) -> Permissions {
        let caller = Caller {
            kind: CallerKind::User,
            registration: Registration::Unknown,
            client_id: "client".into(),
            roles: [role].into_iter().collect(),
            groups,
            scopes: CompactSet::default(),
            authentication_contexts: CompactSet::default(),
        };
        Permissions::new(Arc::new(caller), Arc::new(PolicyInForce::new(policy, "1".into())))
    }

    fn offered() -> Offered {
        let tools = [("read", false), ("write", true)];
        let tool = |(name, writes): (&str, bool)| OfferedTool { name: name.into(), writes, ..Default::default() };
        let prompt = OfferedPrompt { name: "ask".into(), ..Default::default() };
        let resource = OfferedResource { uri: "memo://one".into(), ..Default::default() };
        let template = OfferedTemplate { uri_template: "memo://all/{id}".into(), ..Default::default() };
        Offered::new(tools.map(tool).into(), vec![prompt], vec![resource], vec![template])
    }

    fn request(method: Method) -> Message {
        Message { id: Some(json!(7)), method, meta: Meta::default() }
    }

    fn used(operation: Use) -> Message {
        request(Method::Use { operation, input: Input::default() })
    }

    fn call(tool: &str) -> Message {
        used(Use::Tool { name: tool.into(), arguments: JsonObject::new().into() })
    }

    fn list() -> Message {
        request(Method::List { of: Listed::Tools, cursor: None })
    }

    fn known(ids: &[&str]) -> Groups {
        Groups::Known(ids.iter().map(|id| id.parse::<Uuid>().unwrap()).collect())
    }

    /// Returns a short form of the verdict: the deciding grant or deny, or the kind of the verdict.
    fn word(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Allowed { rule, .. } => serde_json::to_value(rule).unwrap()["grant"].as_str().unwrap().to_owned(),
            Verdict::Open => "open".into(),
            Verdict::NotOffered => "unknown".into(),
            Verdict::NeedGroups(ids) => format!("groups {}", Vec::from_iter(ids.iter().map(|id| &id[35..])).join(" ")),
            Verdict::Refused(refusal) => match &refusal.cause {
                Cause::Denied { deny, .. } => format!("denied by {deny}"),
                Cause::ScopesMissing { grant, .. } | Cause::AuthenticationContextMissing { grant, .. } => {
                    format!("nearly {grant}")
                }
                Cause::NotGranted(_) => "not granted".into(),
            },
        }
    }

    #[test]
    fn a_call_takes_a_grant_of_an_offered_tool() {
        for (role, groups, tool, verdict) in [
            ("Reader", known(&[]), "read", "readers"),
            ("Reader", known(&[]), "write", "not granted"),
            ("Reader", known(&[STAFF]), "read", "denied by staff"),
            ("Reader", known(&[SALES]), "write", "sales"),
            ("Nobody", known(&[]), "read", "not granted"),
            ("Scoped", known(&[]), "write", "nearly scoped"),
            ("Stepped", known(&[]), "write", "nearly stepped"),
            ("Reader", Groups::Unknown, "read", "denied by staff"),
            ("Reader", known(&[]), "else", "unknown"),
            ("Nobody", Groups::Unknown, "else", "unknown"),
        ] {
            let permissions = permissions(policy(), role, groups.clone());
            let judged = judge(&permissions, &call(tool), &offered());
            assert_eq!(word(&judged), verdict, "{role} {groups:?} {tool}");
        }
    }

    #[test]
    fn a_prompt_a_resource_and_a_completion_take_a_grant_of_their_own() {
        let of = |reference: CompletionReference| {
            let (argument, value, context) = ("a".into(), String::new(), Default::default());
            request(Method::Complete(CompletionRequest { reference, argument, value, context }))
        };
        let prompt = |name: &str| used(Use::Prompt { name: name.into(), arguments: JsonObject::new().into() });
        let resource = |uri: &str| used(Use::Resource { uri: uri.into() });
        let subscribe = |uri: &str| request(Method::Subscribe { uri: uri.into(), on: true });
        let mut policy = CompiledPolicy { grants: vec![grant("askers", role("Asker"), &[])], ..Default::default() };
        policy.grants[0].allow.prompts = vec![Pattern("ask".into())];
        let mut readers = grant("readers", role("Reader"), &["*"]);
        readers.allow.resources = vec![Pattern("memo://*".into())];
        policy.grants.push(readers);
        for (role, message, verdict) in [
            ("Asker", prompt("ask"), "askers"),
            ("Reader", prompt("ask"), "not granted"),
            ("Asker", prompt("else"), "unknown"),
            ("Reader", resource("memo://one"), "readers"),
            ("Reader", resource("memo://all/7"), "readers"),
            ("Reader", resource("memo://all/7/8"), "unknown"),
            ("Reader", resource("memo://all/%2e%2e"), "unknown"),
            ("Asker", resource("memo://one"), "not granted"),
            ("Reader", subscribe("memo://one"), "readers"),
            ("Asker", subscribe("memo://one"), "not granted"),
            ("Asker", of(CompletionReference::Prompt("ask".into())), "askers"),
            ("Reader", of(CompletionReference::Prompt("ask".into())), "not granted"),
            ("Reader", of(CompletionReference::Template("memo://all/{id}".into())), "readers"),
            ("Asker", of(CompletionReference::Template("memo://all/{id}".into())), "not granted"),
            ("Reader", of(CompletionReference::Template("memo://one".into())), "unknown"),
        ] {
            let judged = judge(&permissions(policy.clone(), role, known(&[])), &message, &offered());
            assert_eq!(word(&judged), verdict, "{role} {message:?}");
        }
    }

    #[test]
    fn every_method_except_a_use_is_open_to_all_callers() {
        for method in [
            Method::Initialize { revision: "2025-11-25".into(), capabilities: JsonObject::new() },
            Method::Discover,
            Method::Ping,
            Method::SetLogLevel,
            Method::List { of: Listed::Tools, cursor: None },
            Method::List { of: Listed::Templates, cursor: None },
            Method::Listen(Filter::default()),
            Method::Cancelled { request: None },
            Method::Notification("notifications/initialized"),
            Method::UnknownNotification,
        ] {
            let message = request(method);
            let nothing = permissions(CompiledPolicy::default(), "Nobody", Groups::Unknown);
            assert_eq!(judge(&nothing, &message, &offered()), Verdict::Open, "{message:?}");
        }
    }

    #[test]
    fn a_directory_is_asked_only_where_its_answer_can_change_the_verdict() {
        for (role, groups, message, verdict) in [
            // A grant to sales and a deny for staff depend on groups.
            ("Nobody", Groups::Unknown, call("write"), "groups 5 6"),
            ("Reader", Groups::Unknown, call("read"), "groups 5 6"),
            ("Reader", Groups::Unknown, list(), "groups 5 6"),
            // A token's list may be incomplete, so denied groups are looked up.
            ("Reader", known(&[]), call("read"), "groups 6"),
            ("Reader", known(&[]), list(), "groups 6"),
            ("Reader", known(&[STAFF]), call("read"), "denied by staff"),
            ("Reader", known(&[SALES]), call("write"), "sales"),
            ("Nobody", known(&[]), call("write"), "not granted"),
            ("Reader", Groups::Unknown, call("else"), "unknown"),
            ("Reader", Groups::Unknown, request(Method::Ping), "open"),
        ] {
            let permissions = permissions(policy(), role, groups.clone()).with_directory(GraphAccess::OnBehalfOf);
            let judged = judge(&permissions, &message, &offered());
            assert_eq!(word(&judged), verdict, "{role} {groups:?} {message:?}");
        }
    }

    #[test]
    fn the_answer_of_the_directory_decides_and_is_not_requested_again() {
        let some = Groups::AtLeast([SALES.parse::<Uuid>().unwrap()].into_iter().collect());
        for (learnt, tool, verdict) in [
            (Ok(&known(&[SALES])), "read", "readers"),
            (Ok(&known(&[SALES])), "write", "sales"),
            (Ok(&known(&[STAFF])), "read", "denied by staff"),
            (Ok(&some), "write", "sales"),
            (Ok(&some), "read", "denied by staff"),
            (Err("Graph is away."), "read", "denied by staff"),
            (Err("Graph is away."), "write", "not granted"),
        ] {
            let permissions = permissions(policy(), "Reader", Groups::Unknown);
            let permissions = permissions.with_directory(GraphAccess::OnBehalfOf).with_learnt(learnt);
            assert_eq!(word(&judge(&permissions, &call(tool), &offered())), verdict, "{learnt:?} {tool}");
            assert_eq!(judge(&permissions, &list(), &offered()), Verdict::Open);
        }
    }

    #[test]
    fn a_group_with_wider_access_to_graph_is_looked_up_only_if_that_access_is_available() {
        let mut wider = grant("wider", group(SALES), &["write"]);
        wider.graph = GraphAccess::Application;
        let narrow = grant("narrow", role("Writer"), &["write"]);
        let policy = CompiledPolicy { denies: vec![], grants: vec![narrow, wider], ..CompiledPolicy::default() };
        let tool = OfferedTool { name: "write".into(), writes: true, ..Default::default() };
        let offered = Offered::new(vec![tool], vec![], vec![], vec![]);
        for (reachable, message, verdict) in [
            (GraphAccess::OnBehalfOf, call("write"), "narrow"),
            (GraphAccess::Application, call("write"), "groups 5"),
            // A list does not depend on the access to Graph.
            (GraphAccess::Application, list(), "open"),
        ] {
            let permissions = permissions(policy.clone(), "Writer", Groups::Unknown).with_directory(reachable);
            assert_eq!(word(&judge(&permissions, &message, &offered)), verdict, "{reachable:?} {message:?}");
        }
        let permissions = permissions(policy, "Writer", Groups::Unknown).with_learnt(Ok(&known(&[SALES])));
        let Verdict::Allowed { graph, .. } = judge(&permissions, &call("write"), &offered) else { panic!() };
        assert_eq!(graph, GraphAccess::Application);
    }

    #[test]
    fn a_refusal_has_every_fact_that_its_text_needs() {
        let permissions = permissions(policy(), "Nobody", known(&[])).with_learnt(Err("Graph is away."));
        let Verdict::Refused(refusal) = judge(&permissions, &call("write"), &offered()) else { panic!() };
        assert_eq!((refusal.target.name(), refusal.caller), ("write", CallerKind::User));
        assert_eq!(refusal.groups, GroupSource::Unlearnt { why: "Graph is away.".into() });
    }
}
