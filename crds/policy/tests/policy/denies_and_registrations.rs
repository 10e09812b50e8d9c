//! Tests of denies, and of rules that are pinned to an app registration.

use super::*;

#[test]
fn any_matching_deny_wins_over_every_grant_and_names_itself() {
    let policy = CompiledPolicy {
        denies: vec![deny("other", Some(role("Guest")), &["get_*"]), deny("no-profile", None, &["get_user_details"])],
        grants: vec![grant("readers", role("R"), &["*"])],
        ..CompiledPolicy::default()
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
        ..CompiledPolicy::default()
    };
    let denied = |caller: &Caller| match policy.decide(caller, READS) {
        Decision::Refused(Refusal::Denied { groups_unknown, .. }) => Some(groups_unknown),
        _ => None,
    };
    assert_eq!(denied(&user(&["R"], Some(&[SALES]))), Some(false));
    assert_eq!(denied(&user(&["R"], None)), Some(true));
    assert_eq!(denied(&application(DAEMON, &["R"])), Some(true));
    assert_eq!(denied(&user(&["R"], Some(&[OTHER]))), None);
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
    // Columns: the pin, the registration of the token, whether a grant applies, whether a deny applies.
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
            let decision =
                CompiledPolicy { denies: vec![pinned], grants, ..CompiledPolicy::default() }.decide(&caller, READS);
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
        let policy = CompiledPolicy {
            denies: vec![pinned],
            grants: vec![grant("all", role("R"), &["*"])],
            ..CompiledPolicy::default()
        };
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
    assert_eq!(denied(ours, Some(&[OTHER])), None);
    assert_eq!(denied(other.clone(), Some(&[SALES])), None);
    assert_eq!(denied(other, None), None);
    assert_eq!(denied(Registration::Unknown, Some(&[SALES])), Some((false, true)));
    assert_eq!(denied(Registration::Unknown, None), Some((true, true)));
    assert_eq!(denied(Registration::Unknown, Some(&[OTHER])), None);
}
