//! Tests of name patterns and of the serialized policy, and properties of any policy.

use proptest::prelude::*;

use super::*;

#[test]
fn a_policy_without_pins_is_written_as_before_there_were_any() {
    let policy = CompiledPolicy {
        denies: vec![deny("d", None, &["*"])],
        grants: vec![grant("g", role("R"), &["*"])],
        ..CompiledPolicy::default()
    };
    assert!(!serde_json::to_string(&policy).unwrap().contains("registration"));
}

#[test]
fn a_star_means_a_prefix_only_at_the_end_and_grants_no_tool_that_writes() {
    let grants = |pattern: &str, operation| Pattern(pattern.into()).grants(operation);
    assert!(grants("*", READS) && grants("get_*", READS) && grants("get_user_details", READS));
    assert!(!grants("*_details", READS) && !grants("get_user", READS) && !grants("list_*", READS));
    assert!(grants("send_mail", WRITES));
    assert!(!grants("*", WRITES) && !grants("send_*", WRITES) && !grants("send_mail*", WRITES));
}

#[test]
fn a_star_denies_a_tool_that_writes() {
    let policy = CompiledPolicy {
        denies: vec![deny("no-sending", None, &["send_*"])],
        grants: vec![grant("writers", role("R"), &["send_mail"])],
        ..CompiledPolicy::default()
    };
    assert!(matches!(policy.decide(&user(&["R"], None), WRITES), Decision::Refused(Refusal::Denied { .. })));
}

#[test]
fn a_grant_of_tools_is_none_of_prompts_or_resources_and_each_is_granted_by_its_own() {
    let mut grant = grant("all", role("R"), &["*"]);
    let others = [Operation::Prompt("p"), Operation::Resource("file:///a")];
    let allowed = |grant: &Grant, operation| {
        CompiledPolicy { denies: vec![], grants: vec![grant.clone()], ..CompiledPolicy::default() }
            .decide(&user(&["R"], None), operation)
            .is_allowed()
    };
    assert!(others.iter().all(|operation| !allowed(&grant, *operation)));
    grant.allow.prompts = vec![Pattern("p".into())];
    grant.allow.resources = vec![Pattern("file://*".into())];
    assert!(others.iter().all(|operation| allowed(&grant, *operation)));
}

#[test]
fn a_policy_survives_writing_and_reading_and_its_revision_follows_its_bytes() {
    let policy = CompiledPolicy {
        denies: vec![deny("d", Some(the_daemon()), &["*"])],
        grants: vec![requiring(&["s"], Some("c1"), grant("sales", sales(), &["get_*"]))],
        ..CompiledPolicy::default()
    };
    let document = serde_json::to_vec(&policy).unwrap();
    assert_eq!(CompiledPolicy::parse(&document).unwrap(), policy);
    assert_eq!(revision(&document).len(), 32);
    assert_ne!(revision(&document), revision(&serde_json::to_vec(&CompiledPolicy::default()).unwrap()));
}

#[test]
fn a_policy_with_a_member_that_this_version_does_not_know_is_refused() {
    // An older server must not ignore a deny or a requirement.
    let grant = |more: &str| {
        format!(r#"{{"grants":[{{"mapping":{{"name":"b"}},"name":"c","to":[],"allow":{{"tools":[]}}{more}}}]}}"#)
    };
    assert!(CompiledPolicy::parse(grant("").as_bytes()).is_ok());
    assert!(CompiledPolicy::parse(grant(r#","unless":{}"#).as_bytes()).is_err());
    assert!(CompiledPolicy::parse(grant(r#","require":{"device":"compliant"}"#).as_bytes()).is_err());
    assert!(CompiledPolicy::parse(br#"{"grants":[],"forbidden":[]}"#).is_err());
}

fn any_subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        "[AB]".prop_map(|name| role(&name)),
        "[AB]".prop_map(|name| role_of_anybody(&name)),
        (1..=2u128).prop_map(|id| Subject::Group { id: Uuid::from_u128(id).to_string(), display_name: None }),
        "[xy]".prop_map(|client_id| Subject::Application { client_id }),
    ]
}

fn any_patterns() -> impl Strategy<Value = Primitives> {
    prop::collection::vec("(get|send)?(_[ab])?\\*?", 0..3)
        .prop_map(|patterns| Primitives { tools: patterns.into_iter().map(Pattern).collect(), ..Primitives::default() })
}

prop_compose! {
    fn any_grant()(registration in prop::option::of("[rs]"), to in prop::collection::vec(any_subject(), 0..3), allow in any_patterns(),
                   scopes in prop::collection::btree_set("[st]", 0..2), context in prop::option::of("c[12]")) -> Grant {
        Grant { registration, to, allow, require: Requirements { scopes, authentication_context: context }, ..grant("any", role("A"), &[]) }
    }
}

prop_compose! {
    fn any_deny()(registration in prop::option::of("[rs]"),
                  to in prop::option::of(prop::collection::vec(any_subject(), 0..3)), forbid in any_patterns()) -> Deny {
        Deny { registration, to, forbid, ..deny("any", None, &[]) }
    }
}

prop_compose! {
    fn any_caller()(is_user in any::<bool>(), client_id in "[xyz]", roles in prop::collection::vec("[ABC]", 0..3),
                    groups in prop::option::of(prop::collection::vec(1..=3u128, 0..3)), all_known in any::<bool>(),
                    registration in prop::option::of("[rst]"),
                    scopes in prop::collection::vec("[st]", 0..3),
                    authentication_contexts in prop::collection::vec("c[12]", 0..3)) -> Caller {
        let kind = if is_user { CallerKind::User } else { CallerKind::Application };
        let groups = groups.map(|ids| ids.into_iter().map(Uuid::from_u128).collect());
        let groups = groups.map_or(Groups::Unknown, if all_known { Groups::Known } else { Groups::AtLeast });
        let registration = registration.map_or(Registration::Unknown, Registration::Known);
        let set = CompactSet::from_iter;
        Caller { registration, kind, client_id, roles: set(roles), groups, scopes: set(scopes), authentication_contexts: set(authentication_contexts) }
    }
}

prop_compose! {
    fn any_policy()(denies in prop::collection::vec(any_deny(), 0..3), grants in prop::collection::vec(any_grant(), 0..4))
        -> CompiledPolicy { CompiledPolicy { denies, grants, ..CompiledPolicy::default() } }
}

fn any_tool() -> impl Strategy<Value = (String, bool)> {
    ("(get|send)_[ab]", any::<bool>())
}

proptest! {
    #[test]
    fn one_more_deny_or_one_grant_less_never_allows_more(
        policy in any_policy(), deny in any_deny(), caller in any_caller(), (name, writes) in any_tool(),
    ) {
        let operation = Operation::Tool { name: &name, writes };
        let mut tighter = policy.clone();
        tighter.denies.push(deny);
        let mut fewer = policy.clone();
        fewer.grants.pop();
        if !policy.decide(&caller, operation).is_allowed() {
            prop_assert!(!tighter.decide(&caller, operation).is_allowed());
            prop_assert!(!fewer.decide(&caller, operation).is_allowed());
        }
    }

    #[test]
    fn to_learn_less_of_a_caller_never_allows_more(
        policy in any_policy(), caller in any_caller(), (name, writes) in any_tool(),
    ) {
        let operation = Operation::Tool { name: &name, writes };
        let groups = Caller { groups: Groups::Unknown, ..caller.clone() };
        let listed = caller.groups.ids().iter().take(1).copied().collect();
        let others = Caller { groups: Groups::AtLeast(listed), ..caller.clone() };
        let registration = Caller { registration: Registration::Unknown, ..caller.clone() };
        for unknown in [groups, others, registration] {
            if policy.decide(&unknown, operation).is_allowed() {
                prop_assert!(policy.decide(&caller, operation).is_allowed());
            }
        }
    }

    #[test]
    fn what_is_allowed_is_granted_by_the_grant_that_is_named_and_denied_by_none(
        policy in any_policy(), caller in any_caller(), (name, writes) in any_tool(),
    ) {
        let operation = Operation::Tool { name: &name, writes };
        if policy.decide(&caller, operation).is_allowed() {
            let granted = policy.grants.iter().any(|grant| {
                let alone = CompiledPolicy { denies: vec![], grants: vec![grant.clone()], ..CompiledPolicy::default() };
                alone.decide(&caller, operation).is_allowed()
            });
            prop_assert!(granted);
            let denied = policy.denies.iter().any(|deny| deny.registration.is_none() && deny.to.is_none() && deny.forbid.forbid(operation));
            prop_assert!(!denied);
        }
    }

    #[test]
    fn the_order_of_grants_and_denies_decides_nothing(
        policy in any_policy(), caller in any_caller(), (name, writes) in any_tool(),
    ) {
        let operation = Operation::Tool { name: &name, writes };
        let mut reversed = policy.clone();
        reversed.grants.reverse();
        reversed.denies.reverse();
        prop_assert_eq!(
            policy.decide(&caller, operation).is_allowed(),
            reversed.decide(&caller, operation).is_allowed()
        );
    }

    #[test]
    fn meeting_what_a_refusal_asks_for_removes_that_refusal(
        policy in any_policy(), caller in any_caller(), (name, writes) in any_tool(),
    ) {
        let operation = Operation::Tool { name: &name, writes };
        let mut better = caller.clone();
        match policy.decide(&caller, operation) {
            Decision::Refused(Refusal::ScopesMissing { scopes, .. }) => {
                better.scopes = better.scopes.iter().cloned().chain(scopes.into_iter().map(Into::into)).collect();
            }
            Decision::Refused(Refusal::AuthenticationContextMissing { context, .. }) => {
                let contexts = better.authentication_contexts.iter().cloned();
                better.authentication_contexts = contexts.chain([context.into()]).collect();
            }
            _ => return Ok(()),
        }
        let refusal = policy.decide(&better, operation);
        let worse = matches!(refusal, Decision::Refused(Refusal::NotGranted(_) | Refusal::Denied { .. }));
        prop_assert!(!worse);
        prop_assert_ne!(refusal, policy.decide(&caller, operation));
    }
}
