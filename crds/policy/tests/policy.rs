//! The sentences about documents and decisions, each as a test.
#![cfg(test)] // clippy does not see otherwise that the functions tests share are of tests too

use std::collections::BTreeSet;

use mcp_entra_policy::*;
use proptest::prelude::*;

const READS: Operation<'_> = Operation::Tool { name: "get_user_details", writes: false };
const WRITES: Operation<'_> = Operation::Tool { name: "send_mail", writes: true };
const SALES: &str = "3f0c0000-0000-0000-0000-000000000001";
const DAEMON: &str = "77aa0000-0000-0000-0000-000000000002";
const OURS: &str = "1c2d0000-0000-4000-8000-000000000004";
const OTHER: &str = "1c2d0000-0000-4000-8000-000000000005";
const CLIENT: &str = "77aa0000-0000-0000-0000-000000000003";

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn tools(patterns: &[&str]) -> Primitives {
    Primitives { tools: patterns.iter().map(|pattern| Pattern((*pattern).into())).collect(), ..Primitives::default() }
}

fn grant(name: &str, to: Subject, patterns: &[&str]) -> Grant {
    Grant {
        mapping: MappingReference { namespace: Some("productivity".into()), name: "readers".into() },
        name: name.into(),
        registration: None,
        to: vec![to],
        require: Requirements::default(),
        graph: GraphAccess::OnBehalfOf,
        allow: tools(patterns),
    }
}

fn requiring(scopes: &[&str], context: Option<&str>, mut grant: Grant) -> Grant {
    grant.require = Requirements { scopes: set(scopes), authentication_context: context.map(str::to_owned) };
    grant
}

fn deny(name: &str, to: Option<Subject>, patterns: &[&str]) -> Deny {
    Deny {
        mapping: MappingReference { namespace: None, name: "guardrails".into() },
        name: name.into(),
        registration: None,
        to: to.map(|subject| vec![subject]),
        forbid: tools(patterns),
    }
}

fn role(name: &str) -> Subject {
    Subject::AppRole { role: name.into(), callers: [CallerKind::User].into() }
}

fn role_of_anybody(name: &str) -> Subject {
    Subject::AppRole { role: name.into(), callers: [CallerKind::User, CallerKind::Application].into() }
}

fn sales() -> Subject {
    Subject::Group { id: SALES.into(), display_name: Some("Sales".into()) }
}

fn the_daemon() -> Subject {
    Subject::Application { client_id: DAEMON.into() }
}

fn user(roles: &[&str], groups: Option<&[&str]>) -> Caller {
    Caller {
        registration: Registration::Known(OURS.into()),
        kind: CallerKind::User,
        client_id: CLIENT.into(),
        roles: set(roles),
        groups: groups.map_or(Groups::Unknown, |groups| Groups::Known(set(groups))),
        scopes: set(&["mcp.access"]),
        authentication_contexts: BTreeSet::new(),
    }
}

fn application(client_id: &str, roles: &[&str]) -> Caller {
    Caller { kind: CallerKind::Application, client_id: client_id.into(), scopes: BTreeSet::new(), ..user(roles, None) }
}

fn decide(grants: Vec<Grant>, caller: &Caller) -> Decision {
    CompiledPolicy { denies: vec![], grants }.decide(caller, READS)
}

fn ways(decision: Decision) -> Ways {
    match decision {
        Decision::Refused(Refusal::NotGranted(ways)) => ways,
        other => panic!("{other:?}"),
    }
}

fn granting(decision: &Decision) -> &str {
    match decision {
        Decision::Allowed { grant, .. } => grant,
        Decision::Refused(refusal) => panic!("{refusal:?}"),
    }
}

#[test]
fn graph_is_reached_as_the_application_only_where_a_grant_that_allows_the_call_says_so() {
    let as_whom = |grants: Vec<Grant>| match decide(grants, &user(&["A"], None)) {
        Decision::Allowed { graph, .. } => graph,
        Decision::Refused(refusal) => panic!("{refusal:?}"),
    };
    let ordinary = grant("ordinary", role("A"), &["*"]);
    let wide = |name: &str, role| Grant { graph: GraphAccess::Application, ..grant(name, role, &["get_*"]) };
    assert_eq!(as_whom(vec![ordinary.clone()]), GraphAccess::OnBehalfOf);
    assert_eq!(as_whom(vec![ordinary.clone(), wide("wide", role("A"))]), GraphAccess::Application);
    assert_eq!(as_whom(vec![ordinary.clone(), wide("others", role("B"))]), GraphAccess::OnBehalfOf);
    let lacking = requiring(&["more"], None, wide("lacking", role("A")));
    assert_eq!(as_whom(vec![lacking, ordinary]), GraphAccess::OnBehalfOf);
}

#[test]
fn no_mapping_means_no_tool() {
    let everything = user(&["Mcp.Reader", "Mcp.Admin"], Some(&[SALES]));
    assert_eq!(ways(decide(vec![], &everything)), Ways::default());
}

#[test]
fn a_role_grants_what_its_mapping_says_and_names_itself() {
    let grants = vec![grant("all", role("Mcp.Reader"), &["get_user_details"])];
    let Decision::Allowed { mapping, grant, .. } = decide(grants, &user(&["Mcp.Reader"], None)) else {
        panic!("the role is granted")
    };
    assert_eq!((mapping.to_string().as_str(), grant.as_str()), ("productivity/readers", "all"));
}

#[test]
fn another_role_is_refused_and_told_which_one_would_do() {
    let grants =
        vec![grant("readers", role("Mcp.Reader"), &["get_*"]), grant("writers", role("Mcp.Writer"), &["send_mail"])];
    let ways = ways(decide(grants, &user(&["mcp.reader", "Mcp.Writer"], Some(&[]))));
    assert_eq!((ways.roles, ways.groups_unknown), (set(&["Mcp.Reader"]), false));
}

#[test]
fn a_group_grants_to_its_members_alone() {
    let grants = || vec![grant("sales", sales(), &["get_*"])];
    assert!(decide(grants(), &user(&[], Some(&[SALES]))).is_allowed());
    // A role of a group's name is no membership.
    assert_eq!(ways(decide(grants(), &user(&["Sales", SALES], Some(&["other"])))).groups, set(&["Sales"]));
}

#[test]
fn unknown_groups_grant_nothing_and_the_refusal_says_that_they_were_unknown() {
    assert!(ways(decide(vec![grant("sales", sales(), &["get_*"])], &user(&[], None))).groups_unknown);
}

#[test]
fn of_groups_that_are_known_in_part_those_count_and_all_others_are_unknown() {
    let caller = Caller { groups: Groups::AtLeast(set(&[SALES])), ..user(&[], None) };
    let other = || Subject::Group { id: "another".into(), display_name: None };
    let policy = |to: Subject, denied: Subject| CompiledPolicy {
        denies: vec![deny("d", Some(denied), &["send_*"])],
        grants: vec![grant("g", to, &["get_*"])],
    };
    assert!(policy(sales(), other()).decide(&caller, READS).is_allowed());
    let refused = policy(other(), other()).decide(&caller, READS);
    assert!(ways(refused).groups_unknown);
    for (denied, unknown) in [(sales(), false), (other(), true)] {
        let denied =
            CompiledPolicy { denies: vec![deny("d", Some(denied), &["get_*"])], ..policy(sales(), the_daemon()) };
        let Decision::Refused(Refusal::Denied { groups_unknown, .. }) = denied.decide(&caller, READS) else {
            panic!("not denied");
        };
        assert_eq!(groups_unknown, unknown);
    }
}

#[test]
fn unknown_groups_do_not_stand_in_the_way_of_a_role() {
    let grants = vec![grant("sales", sales(), &["get_*"]), grant("readers", role("Mcp.Reader"), &["get_*"])];
    assert!(decide(grants, &user(&["Mcp.Reader"], None)).is_allowed());
}

#[test]
fn an_application_with_a_users_role_is_refused_and_not_told_to_get_it() {
    let application = Caller { groups: Groups::Known(set(&[SALES])), ..application(DAEMON, &["Mcp.Reader"]) };
    let grants = vec![grant("readers", role("Mcp.Reader"), &["get_*"]), grant("sales", sales(), &["get_*"])];
    assert_eq!(ways(decide(grants, &application)), Ways::default());
}

#[test]
fn a_role_that_means_applications_too_grants_to_both_and_names_itself_to_those_without() {
    let grants = || vec![grant("readers", role_of_anybody("Mcp.Reader"), &["get_*"])];
    assert!(decide(grants(), &application(DAEMON, &["Mcp.Reader"])).is_allowed());
    assert!(decide(grants(), &user(&["Mcp.Reader"], None)).is_allowed());
    assert_eq!(ways(decide(grants(), &application(DAEMON, &["Other"]))).roles, set(&["Mcp.Reader"]));
}

#[test]
fn an_application_is_meant_by_itself_alone_and_never_a_person_who_signed_in_to_it() {
    let grants = || vec![grant("daemon", the_daemon(), &["get_*"])];
    assert!(decide(grants(), &application(DAEMON, &[])).is_allowed());
    assert_eq!(ways(decide(grants(), &application(CLIENT, &[]))), Ways::default());
    let through_it = Caller { client_id: DAEMON.into(), ..user(&[], Some(&[])) };
    assert_eq!(ways(decide(grants(), &through_it)), Ways::default());
}

#[test]
fn missing_scopes_are_told_all_at_once() {
    let grants = || vec![requiring(&["mcp.access", "mail.read"], None, grant("mail", role("R"), &["get_*"]))];
    let Decision::Refused(Refusal::ScopesMissing { grant, scopes, .. }) = decide(grants(), &user(&["R"], None)) else {
        panic!("a scope is missing")
    };
    assert_eq!((grant.as_str(), scopes), ("mail", set(&["mail.read", "mcp.access"])));
    let with = Caller { scopes: set(&["mcp.access", "mail.read"]), ..user(&["R"], None) };
    assert!(decide(grants(), &with).is_allowed());
}

#[test]
fn a_missing_authentication_context_is_told_once_the_scopes_are_there() {
    let grants = || vec![requiring(&["mail.read"], Some("c1"), grant("mail", role("R"), &["get_*"]))];
    let refused = |caller: &Caller| match decide(grants(), caller) {
        Decision::Refused(refusal) => refusal,
        Decision::Allowed { .. } => panic!("something is missing"),
    };
    let mut caller = user(&["R"], None);
    assert!(matches!(refused(&caller), Refusal::ScopesMissing { .. }));
    caller.scopes = set(&["mail.read"]);
    caller.authentication_contexts = set(&["c2"]);
    assert!(
        matches!(refused(&caller), Refusal::AuthenticationContextMissing { context, .. } if context == "c1"),
        "another context will not do"
    );
    caller.authentication_contexts = set(&["c1", "c2"]);
    assert!(decide(grants(), &caller).is_allowed());
}

#[test]
fn of_several_grants_that_ask_for_more_the_one_that_asks_for_least_is_told() {
    let grants = vec![
        requiring(&["a", "b"], None, grant("two", role("R"), &["get_*"])),
        requiring(&["c"], None, grant("one", role("R"), &["get_*"])),
        requiring(&[], Some("c1"), grant("other", role("S"), &["get_*"])),
    ];
    let decision = decide(grants, &user(&["R"], None));
    assert!(
        matches!(&decision, Decision::Refused(Refusal::ScopesMissing { grant, .. }) if grant == "one"),
        "{decision:?}"
    );
}

#[test]
fn requirements_narrow_and_grant_nothing_by_themselves() {
    let narrow = requiring(&["mcp.access"], None, grant("narrow", role("R"), &["get_*"]));
    assert_eq!(ways(decide(vec![narrow.clone()], &user(&["S"], Some(&[])))).roles, set(&["R"]));
    // A neighbour without requirements is not narrowed.
    let wide = grant("wide", role("R"), &["get_*"]);
    let unmet = requiring(&["more"], None, narrow);
    assert_eq!(granting(&decide(vec![unmet, wide], &user(&["R"], None))), "wide");
}

#[test]
fn an_application_meets_no_requirement_and_is_not_challenged_for_one() {
    let grants = vec![requiring(&["mcp.access"], None, grant("readers", role_of_anybody("R"), &["get_*"]))];
    assert_eq!(ways(decide(grants, &application(DAEMON, &["R"]))), Ways::default());
}

#[test]
fn any_matching_deny_wins_over_every_grant_and_names_itself() {
    let policy = CompiledPolicy {
        denies: vec![deny("other", Some(role("Guest")), &["get_*"]), deny("no-profile", None, &["get_user_details"])],
        grants: vec![grant("readers", role("R"), &["*"])],
    };
    let Decision::Refused(Refusal::Denied { mapping, deny, groups_unknown, .. }) =
        policy.decide(&user(&["R"], None), READS)
    else {
        panic!("it is denied to everyone")
    };
    assert_eq!((mapping.to_string().as_str(), deny.as_str(), groups_unknown), ("guardrails", "no-profile", false));
    let neighbour = Operation::Tool { name: "list_my_messages", writes: false };
    assert!(policy.decide(&user(&["R"], None), neighbour).is_allowed());
}

#[test]
fn a_deny_to_a_group_binds_its_members_and_those_who_may_be_but_nobody_else() {
    let policy = CompiledPolicy {
        denies: vec![deny("no-sales", Some(sales()), &["*"])],
        grants: vec![grant("readers", role_of_anybody("R"), &["*"])],
    };
    let denied = |caller: &Caller| match policy.decide(caller, READS) {
        Decision::Refused(Refusal::Denied { groups_unknown, .. }) => Some(groups_unknown),
        _ => None,
    };
    assert_eq!(denied(&user(&["R"], Some(&[SALES]))), Some(false));
    assert_eq!(denied(&user(&["R"], None)), Some(true));
    assert_eq!(denied(&application(DAEMON, &["R"])), Some(true));
    assert_eq!(denied(&user(&["R"], Some(&["other"]))), None);
}

#[test]
fn an_audience_proves_a_registration_only_as_its_client_id_or_the_uri_of_that() {
    for audience in [OURS.to_owned(), format!("api://{OURS}")] {
        assert_eq!(Registration::proven_by(&audience), Registration::Known(OURS.into()), "{audience}");
    }
    let names = [
        String::new(),
        "api://".into(),
        "https://graph.mcp.contoso.com/mcp".into(),
        format!("https://{OURS}"),
        format!("api://{OURS}/"),
        format!("api://{OURS}/{OTHER}"),
        format!("api://mcp/{OURS}"),
        format!("api://api://{OURS}"),
        format!("spn:{OURS}"),
        OURS.to_uppercase(),
        format!("API://{OURS}"),
        format!("{OURS} "),
        OURS.replace('-', "0"),
        OURS.replace('c', "g"),
    ];
    for audience in names {
        assert_eq!(Registration::proven_by(&audience), Registration::Unknown, "{audience}");
    }
}

#[test]
fn a_pinned_grant_holds_for_tokens_of_its_registration_and_a_pinned_deny_for_those_and_for_unproven_ones() {
    let ours = || Registration::Known(OURS.into());
    let other = || Registration::Known(OTHER.into());
    let unknown = || Registration::Unknown;
    // The pin, the registration of the token, whether a grant holds, whether a deny does.
    let table = [
        (None, ours(), true, true),
        (None, other(), true, true),
        (None, unknown(), true, true),
        (Some(OURS), ours(), true, true),
        (Some(OURS), other(), false, false),
        (Some(OURS), unknown(), false, true),
    ];
    for (pin, registration, granted, denied) in table {
        for caller in [user(&["R"], None), application(DAEMON, &["R"])] {
            let caller = Caller { registration: registration.clone(), ..caller };
            let pin = pin.map(str::to_owned);
            let pinned = Grant { registration: pin.clone(), ..grant("pinned", role_of_anybody("R"), &["*"]) };
            let decision = decide(vec![pinned], &caller);
            assert_eq!(decision.is_allowed(), granted, "grant pinned to {pin:?}: {caller:?}");
            if !granted {
                let unseen = Ways { registration_unknown: registration == unknown(), ..Ways::default() };
                assert_eq!(ways(decision), unseen, "the role of another registration is no way in");
            }

            let pinned = Deny { registration: pin.clone(), ..deny("pinned", None, &["*"]) };
            let grants = vec![grant("all", role_of_anybody("R"), &["*"])];
            let decision = CompiledPolicy { denies: vec![pinned], grants }.decide(&caller, READS);
            assert_eq!(!decision.is_allowed(), denied, "deny pinned to {pin:?}: {caller:?}");
            if let Decision::Refused(Refusal::Denied { registration_unknown, .. }) = decision {
                assert_eq!(registration_unknown, pin.is_some() && registration == unknown());
            }
        }
    }
}

#[test]
fn a_pinned_deny_to_a_group_takes_the_registration_and_the_group() {
    let denied = |registration: Registration, groups: Option<&[&str]>| {
        let pinned = Deny { registration: Some(OURS.into()), ..deny("no-sales", Some(sales()), &["*"]) };
        let policy = CompiledPolicy { denies: vec![pinned], grants: vec![grant("all", role("R"), &["*"])] };
        match policy.decide(&Caller { registration, ..user(&["R"], groups) }, READS) {
            Decision::Refused(Refusal::Denied { groups_unknown, registration_unknown, .. }) => {
                Some((groups_unknown, registration_unknown))
            }
            _ => None,
        }
    };
    let (ours, other) = (Registration::Known(OURS.into()), Registration::Known(OTHER.into()));
    assert_eq!(denied(ours.clone(), Some(&[SALES])), Some((false, false)));
    assert_eq!(denied(ours.clone(), None), Some((true, false)));
    assert_eq!(denied(ours, Some(&["other"])), None);
    assert_eq!(denied(other.clone(), Some(&[SALES])), None);
    assert_eq!(denied(other, None), None);
    assert_eq!(denied(Registration::Unknown, Some(&[SALES])), Some((false, true)));
    assert_eq!(denied(Registration::Unknown, None), Some((true, true)));
    assert_eq!(denied(Registration::Unknown, Some(&["other"])), None);
}

#[test]
fn a_policy_without_pins_is_written_as_before_there_were_any() {
    let policy = CompiledPolicy { denies: vec![deny("d", None, &["*"])], grants: vec![grant("g", role("R"), &["*"])] };
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
    };
    assert!(matches!(policy.decide(&user(&["R"], None), WRITES), Decision::Refused(Refusal::Denied { .. })));
}

#[test]
fn a_grant_of_tools_is_none_of_prompts_or_resources_and_each_is_granted_by_its_own() {
    let mut grant = grant("all", role("R"), &["*"]);
    let others = [Operation::Prompt("p"), Operation::Resource("file:///a")];
    let allowed = |grant: &Grant, operation| {
        CompiledPolicy { denies: vec![], grants: vec![grant.clone()] }
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
    };
    let document = serde_json::to_vec(&policy).unwrap();
    assert_eq!(CompiledPolicy::parse(&document).unwrap(), policy);
    assert_eq!(revision(&document).len(), 32);
    assert_ne!(revision(&document), revision(&serde_json::to_vec(&CompiledPolicy::default()).unwrap()));
}

#[test]
fn a_policy_with_a_member_that_this_version_does_not_know_is_refused() {
    // A deny or a requirement that an older server skipped would be a hole.
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
        "[gh]".prop_map(|id| Subject::Group { id, display_name: None }),
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
    fn any_caller()(is_user in any::<bool>(), client_id in "[xyz]", roles in prop::collection::btree_set("[ABC]", 0..3),
                    groups in prop::option::of(prop::collection::btree_set("[ghi]", 0..3)), all_known in any::<bool>(),
                    registration in prop::option::of("[rst]"),
                    scopes in prop::collection::btree_set("[st]", 0..3),
                    authentication_contexts in prop::collection::btree_set("c[12]", 0..3)) -> Caller {
        let kind = if is_user { CallerKind::User } else { CallerKind::Application };
        let groups = groups.map_or(Groups::Unknown, if all_known { Groups::Known } else { Groups::AtLeast });
        let registration = registration.map_or(Registration::Unknown, Registration::Known);
        Caller { registration, kind, client_id, roles, groups, scopes, authentication_contexts }
    }
}

prop_compose! {
    fn any_policy()(denies in prop::collection::vec(any_deny(), 0..3), grants in prop::collection::vec(any_grant(), 0..4))
        -> CompiledPolicy { CompiledPolicy { denies, grants } }
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
        let listed = match &caller.groups {
            Groups::Known(groups) | Groups::AtLeast(groups) => groups.iter().take(1).cloned().collect(),
            Groups::Unknown => BTreeSet::new(),
        };
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
                let alone = CompiledPolicy { denies: vec![], grants: vec![grant.clone()] };
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
            Decision::Refused(Refusal::ScopesMissing { scopes, .. }) => better.scopes.extend(scopes),
            Decision::Refused(Refusal::AuthenticationContextMissing { context, .. }) => {
                better.authentication_contexts.insert(context);
            }
            _ => return Ok(()),
        }
        let refusal = policy.decide(&better, operation);
        let worse = matches!(refusal, Decision::Refused(Refusal::NotGranted(_) | Refusal::Denied { .. }));
        prop_assert!(!worse);
        prop_assert_ne!(refusal, policy.decide(&caller, operation));
    }
}
