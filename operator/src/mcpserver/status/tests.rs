use std::{sync::Arc, time::Duration};

use mcp_entra_policy::ServerStatus;
use serde_json::json;

use super::*;
use crate::{
    conditions::condition::State,
    mcpserver::{
        build::configuration_hash,
        outcome::Outcome,
        pod_status::{PollError, PolledPod},
        poll::Answers,
        resolved::Resolved,
        status::observed_children::ObservedChildren,
        validate::{Validated, tests::mk_options, validate},
    },
    objects::{
        fixtures::{mk_backend_server, mk_owner, mk_server},
        names::CONFIGURATION_HASH,
    },
    ownership::{Held, Lost},
    policy::{
        binding::Target,
        compile::{Compiled, compile},
    },
};

fn mk_validated(server: &McpServer) -> Validated {
    validate(server, &mk_owner(), &Resolved::default(), &mk_options()).unwrap()
}

/// The outcome of a pass over an accepted server that holds its claims.
pub(crate) fn mk_outcome() -> Outcome {
    mk_outcome_of(&mk_server())
}

/// Returns the same for this server.
pub(crate) fn mk_outcome_of(server: &McpServer) -> Outcome {
    let standing = Standing::Held(Held { root: true, listener_of: None });
    Outcome { policy_is_written: true, validated: Some(Ok(mk_validated(server))), standing, ..Outcome::default() }
}

/// Calls a function with the facts from this outcome and these answers. The compiled policy is `new`.
pub(crate) fn with_facts<T>(
    outcome: &Outcome,
    answers: &Answers,
    change: impl FnOnce(&mut Compiled),
    use_of: impl FnOnce(&Facts<'_>) -> T,
) -> T {
    with_facts_of(&mk_server(), outcome, answers, change, use_of)
}

/// Does the same for this server.
pub(crate) fn with_facts_of<T>(
    server: &McpServer,
    outcome: &Outcome,
    answers: &Answers,
    change: impl FnOnce(&mut Compiled),
    use_of: impl FnOnce(&Facts<'_>) -> T,
) -> T {
    let owner = mk_owner();
    let mut compiled = compile(&Target::of(server, None), []).unwrap();
    compiled.summary.revision = "new".into();
    change(&mut compiled);
    let observed = ObservedChildren::default();
    use_of(&Facts { server, owner: &owner, compiled: &compiled, outcome, observed: &observed, answers })
}

/// A pod with the newest configuration and this report.
pub(crate) fn mk_pod(name: &str, ready: bool, report: Option<serde_json::Value>) -> PolledPod {
    mk_pod_of(&mk_server(), name, ready, report)
}

/// A ready pod of a server with a backend, with this report about it.
pub(crate) fn mk_backend_pod(name: &str, backend: serde_json::Value) -> PolledPod {
    let mut report = mk_report("new", Some(true)).unwrap();
    report["backend"] = backend;
    mk_pod_of(&mk_backend_server(), name, true, Some(report))
}

fn mk_pod_of(server: &McpServer, name: &str, ready: bool, report: Option<serde_json::Value>) -> PolledPod {
    let state = if ready { "True" } else { "False" };
    let hash = configuration_hash(&mk_validated(server));
    let pod = json!({"metadata": {"name": name, "annotations": {CONFIGURATION_HASH: hash}},
        "status": {"conditions": [{"type": "Ready", "status": state}]}});
    let report = match report {
        Some(report) => Ok(serde_json::from_value::<ServerStatus>(report).unwrap().into()),
        None => Err(PollError::NoAddress),
    };
    PolledPod { pod: Arc::new(serde_json::from_value(pod).unwrap()), report }
}

pub(crate) fn mk_report(revision: &str, works: Option<bool>) -> Option<serde_json::Value> {
    Some(json!({
        "version": "1",
        "policy": {"revision": revision, "error": null},
        "federation": {"identity": null, "works": works, "message": "AADSTS1", "lastProbe": null},
        "keys": {"count": 1, "ageSeconds": 1, "error": null},
    }))
}

/// Returns the status for these answers of pods, after a lag of some seconds.
fn told(
    polled: impl Into<Vec<PolledPod>>,
    lagging: Option<u64>,
    change: impl FnOnce(&mut Compiled),
) -> McpServerStatus {
    let lagging = lagging.map(Duration::from_secs);
    let answers = Answers { polled: polled.into(), lagging, probing: lagging, ..Answers::default() };
    let status = |facts: &Facts<'_>| status(facts, &McpServerStatus::default(), Timestamp::UNIX_EPOCH);
    with_facts(&mk_outcome(), &answers, change, status)
}

fn assert_says(status: &McpServerStatus, type_: ConditionType, state: State, reason: Reason) {
    let verdict = Verdict::before(&status.conditions, type_).unwrap();
    assert_eq!((verdict.state, verdict.reason.clone()), (state, reason.to_string()), "{type_}: {}", verdict.message);
}

#[test]
fn a_server_keeps_its_values_until_another_server_holds_them() {
    let after = |previous: &McpServerStatus, standing| {
        let outcome = Outcome { standing, ..mk_outcome() };
        let status = |facts: &Facts<'_>| status(facts, previous, Timestamp::UNIX_EPOCH);
        with_facts(&outcome, &Answers::default(), |_| {}, status)
    };
    let nothing = McpServerStatus::default();
    let held = after(&nothing, mk_outcome().standing);
    assert!(held.ownership.is_some());
    let undecided = after(&held, Standing::Open);
    assert_eq!(undecided.ownership, held.ownership, "an unreadable claim changes nothing");
    assert_eq!(after(&held, Standing::Lost(Lost::Host { free_at: None })).ownership, None);
    assert_eq!(after(&nothing, Standing::Open).ownership, None);
}

#[test]
fn only_ready_pods_count_for_conditions() {
    let status = told([mk_pod("a", false, mk_report("new", Some(true)))], None, |_| {});
    assert_says(&status, ConditionType::FederationReady, State::Unknown, Reason::NoReadyPods);
    assert_says(&status, ConditionType::AuthorizationReady, State::Unknown, Reason::NoReadyPods);
}

#[test]
fn one_pod_of_many_is_enough_to_fail_and_not_enough_to_succeed() {
    use ConditionType::{AuthorizationReady, FederationReady};
    let good = || mk_pod("a", true, mk_report("new", Some(true)));
    let status = told([good(), mk_pod("b", true, mk_report("new", Some(true)))], None, |_| {});
    assert_says(&status, FederationReady, State::True, Reason::ExchangeWorks);
    assert_says(&status, AuthorizationReady, State::True, Reason::PolicyEnforced);
    let status = told([good(), mk_pod("b", true, mk_report("old", Some(false)))], Some(11), |_| {});
    assert_says(&status, FederationReady, State::False, Reason::ExchangeFailed);
    assert_says(&status, AuthorizationReady, State::False, Reason::PolicyLagging);
}

#[test]
fn a_requested_permission_without_consent_is_named_and_federation_stays_ready() {
    let mut report = mk_report("new", Some(true)).unwrap();
    let message = |report: &serde_json::Value| {
        let status = told([mk_pod("a", true, Some(report.clone()))], None, |_| {});
        assert_says(&status, ConditionType::FederationReady, State::True, Reason::ExchangeWorks);
        Verdict::before(&status.conditions, ConditionType::FederationReady).unwrap().message
    };
    assert!(!message(&report).contains("consent"));
    report["graph"] = json!({"missingPermissions": ["User.Read", "a pod's own words"]});
    let said = message(&report);
    assert!(said.contains("tools that need User.Read fail: ask an administrator"), "{said}");
    assert!(!said.contains("words"), "{said}");
    report["graph"] = json!({"missingPermissions": ["a pod's own words"]});
    assert!(!message(&report).contains("consent"));
}

#[test]
fn a_ready_pod_without_an_answer_is_reported_after_the_grace_period() {
    use ConditionType::{AuthorizationReady, FederationReady};
    let status = told([mk_pod("a", true, None)], Some(1), |_| {});
    assert_says(&status, AuthorizationReady, State::Unknown, Reason::Progressing);
    let status = told([mk_pod("a", true, None)], Some(11), |_| {});
    assert_says(&status, FederationReady, State::Unknown, Reason::StatusUnreachable);
    assert_says(&status, AuthorizationReady, State::False, Reason::StatusUnreachable);
}

#[test]
fn before_the_first_probe_has_ended_nothing_is_known_of_the_federation() {
    let status = told([mk_pod("a", true, mk_report("new", None))], None, |_| {});
    assert_says(&status, ConditionType::FederationReady, State::Unknown, Reason::ProbePending);
}

#[test]
fn a_policy_without_all_mappings_is_reported_even_if_every_pod_enforces_it() {
    let pods = [mk_pod("a", true, mk_report("new", Some(true)))];
    let status = told(pods, None, |compiled| compiled.left_out = vec!["newest".into()]);
    assert_says(&status, ConditionType::AuthorizationReady, State::False, Reason::PolicyTooLarge);
}

#[test]
fn pods_of_an_older_configuration_do_not_count_for_the_newest() {
    let old = || {
        let mut polled = mk_pod("old", true, mk_report("new", Some(true)));
        Arc::get_mut(&mut polled.pod).unwrap().configuration_hash = None;
        polled
    };
    let status = told([old()], None, |_| {});
    assert_says(&status, ConditionType::FederationReady, State::Unknown, Reason::NoReadyPods);
    let status = told([old(), mk_pod("a", true, mk_report("new", None))], None, |_| {});
    assert_says(&status, ConditionType::FederationReady, State::Unknown, Reason::ProbePending);
    // It still serves, so its policy matters.
    let mut lagging = mk_pod("old", true, mk_report("old", Some(true)));
    Arc::get_mut(&mut lagging.pod).unwrap().configuration_hash = None;
    let status = told([lagging], Some(11), |_| {});
    assert_says(&status, ConditionType::AuthorizationReady, State::False, Reason::PolicyLagging);
}

#[test]
fn one_pod_whose_first_probe_is_pending_keeps_federation_from_being_ready() {
    let pods = [mk_pod("a", true, mk_report("new", Some(true))), mk_pod("b", true, mk_report("new", None))];
    let status = told(pods, Some(11), |_| {});
    assert_says(&status, ConditionType::FederationReady, State::Unknown, Reason::ProbePending);
    let pods = [mk_pod("a", true, mk_report("new", Some(true))), mk_pod("b", true, None)];
    let status = told(pods, Some(11), |_| {});
    assert_says(&status, ConditionType::FederationReady, State::True, Reason::ExchangeWorks);
    let verdict = Verdict::before(&status.conditions, ConditionType::FederationReady).unwrap();
    assert!(verdict.message.contains("1 of 2 ready pods"), "{}", verdict.message);
}

#[test]
fn the_version_is_the_oldest_that_a_ready_pod_runs() {
    let pod = |name: &str, ready: bool, version: &str| {
        let mut polled = mk_pod(name, ready, mk_report("new", Some(true)));
        polled.report.as_mut().unwrap().version = Some(version.into());
        polled
    };
    let version = |pods: Vec<PolledPod>| told(pods, None, |_| {}).version;
    assert_eq!(version(vec![pod("a", true, "0.10.0"), pod("b", true, "0.9.1")]).as_deref(), Some("0.9.1"));
    assert_eq!(version(vec![pod("a", true, "0.10.0"), pod("b", false, "0.9.1")]).as_deref(), Some("0.10.0"));
    assert_eq!(version(vec![]), None);
}

#[test]
fn a_status_is_valid_for_any_report_of_a_pod() {
    use crate::objects::untrusted_text::tests::{assert_harmless, hostile};
    let report = |works: bool| {
        json!({
            "version": "1",
            "policy": {"revision": "old", "error": "e"},
            "federation": {"identity": {"issuer": "https://i", "subject": "s", "audience": "a"},
                           "works": works, "message": "m", "lastProbe": "t"},
            "keys": {"count": 0, "ageSeconds": 1, "error": "e"},
        })
    };
    for pointer in [
        "/version",
        "/policy/revision",
        "/policy/error",
        "/federation/identity/issuer",
        "/federation/identity/subject",
        "/federation/identity/audience",
        "/federation/message",
        "/federation/lastProbe",
        "/keys/error",
    ] {
        for (works, ready) in [(true, true), (false, true), (false, false)] {
            let mut report = report(works);
            *report.pointer_mut(pointer).unwrap() = json!(hostile());
            let status = told([mk_pod("a", ready, Some(report))], Some(11), |_| {});
            let federation = status.federation.unwrap().issuer.unwrap_or_default();
            let texts = status.conditions.iter().map(|condition| &condition.message);
            texts.chain([&federation]).chain(&status.version).for_each(|text| assert_harmless(text));
        }
    }
}

#[test]
fn long_lists_of_names_are_cut() {
    let names: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    assert_eq!(crate::conditions::condition::named(&names), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
    assert_eq!(crate::conditions::condition::named(&["a".to_owned()]), "a");
}
