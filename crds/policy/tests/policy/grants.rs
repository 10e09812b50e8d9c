//! Tests of grants: roles, groups, applications and requirements.

use super::*;

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
    // A role with the name of a group is not a membership.
    assert_eq!(ways(decide(grants(), &user(&["Sales", SALES], Some(&[OTHER])))).groups, set(&["Sales"]));
}

#[test]
fn unknown_groups_grant_nothing_and_the_refusal_says_that_they_were_unknown() {
    assert!(ways(decide(vec![grant("sales", sales(), &["get_*"])], &user(&[], None))).groups_unknown);
}

#[test]
fn of_groups_that_are_known_in_part_those_count_and_all_others_are_unknown() {
    let caller = Caller { groups: Groups::AtLeast(groups(&[SALES])), ..user(&[], None) };
    let other = || Subject::Group { id: "another".into(), display_name: None };
    let policy = |to: Subject, denied: Subject| CompiledPolicy {
        denies: vec![deny("d", Some(denied), &["send_*"])],
        grants: vec![grant("g", to, &["get_*"])],
        ..CompiledPolicy::default()
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
    let application = Caller { groups: Groups::Known(groups(&[SALES])), ..application(DAEMON, &["Mcp.Reader"]) };
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
    // A grant without requirements is not narrowed.
    let wide = grant("wide", role("R"), &["get_*"]);
    let unmet = requiring(&["more"], None, narrow);
    assert_eq!(granting(&decide(vec![unmet, wide], &user(&["R"], None))), "wide");
}

#[test]
fn an_application_meets_no_requirement_and_is_not_challenged_for_one() {
    let grants = vec![requiring(&["mcp.access"], None, grant("readers", role_of_anybody("R"), &["get_*"]))];
    assert_eq!(ways(decide(grants, &application(DAEMON, &["R"]))), Ways::default());
}
