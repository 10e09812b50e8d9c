use serde_json::{Value, json};

use super::*;
use crate::conditions::condition::State;

fn mk_exposure(parents: Value, tls: Value) -> Exposure {
    serde_json::from_value(json!({"host": "h.example", "gateway": {"parentRefs": parents}, "tls": tls})).unwrap()
}

fn mk_view(status: Value) -> ChildView {
    serde_json::from_value(json!({"metadata": {"name": "graph", "generation": 2}, "status": status})).unwrap()
}

fn leading<'a>(exposure: &'a Exposure) -> Leading<'a> {
    Leading {
        namespace: "productivity",
        exposure,
        absent: &[],
        ingress: None,
        route: None,
        listener_set: None,
        listener_set_name: "graph",
        certificate: None,
        now: "2026-11-25T12:00:00Z".parse().unwrap(),
    }
}

fn told(condition: &str, status: &str, reason: &str) -> Value {
    json!({"type": condition, "status": status, "reason": reason, "message": "because", "observedGeneration": 2})
}

fn at(parent: Value, conditions: &[Value]) -> Value {
    json!({"parentRef": parent, "controllerName": "c", "conditions": conditions})
}

fn assert_says(verdict: &Verdict, state: State, reason: Reason, part: &str) {
    assert_eq!((verdict.state, verdict.reason.as_str()), (state, reason.to_string().as_str()), "{verdict:?}");
    assert!(verdict.message.contains(part), "{verdict:?}");
}

const YES: [(&str, &str, &str); 2] = [("Accepted", "True", "Accepted"), ("ResolvedRefs", "True", "ResolvedRefs")];

fn yes() -> Vec<Value> {
    YES.iter().map(|(type_, status, reason)| told(type_, status, reason)).collect()
}

#[test]
fn words_of_gateways_and_certificates_are_bounded() {
    use crate::objects::untrusted_text::tests::{assert_harmless, hostile};
    for (reason, message) in [(hostile(), "m".to_owned()), ("R".to_owned(), hostile())] {
        let condition = json!({"type": "Accepted", "status": "False", "reason": reason, "message": message});
        assert_harmless(&said(&serde_json::from_value(condition).unwrap()));
    }
}

#[test]
fn every_parent_must_accept_the_route_and_the_first_that_does_not_is_quoted() {
    let parents = json!([{"name": "one", "namespace": "infra", "sectionName": "https"},
                         {"name": "two", "sectionName": "web"}]);
    let exposure = mk_exposure(parents, json!({"terminatedByGateway": true}));
    let one = || json!({"name": "one", "namespace": "infra", "sectionName": "https", "kind": "Gateway"});
    let two = || json!({"name": "two", "namespace": "productivity", "sectionName": "web"});
    let verdict = |parents: Vec<Value>| {
        let route = mk_view(json!({"parents": parents}));
        exposed(Leading { route: Some(&route), ..leading(&exposure) })
    };
    let both = verdict(vec![at(one(), &yes()), at(two(), &yes())]);
    assert_says(&both, State::True, Reason::RouteAccepted, "Gateway infra/one (listener https), Gateway two");
    assert_says(&verdict(vec![at(one(), &yes())]), State::False, Reason::RoutePending, "Gateway two (listener web)");

    let no = [told("Accepted", "False", "NotAllowedByListeners"), told("ResolvedRefs", "True", "ResolvedRefs")];
    let refused = verdict(vec![at(one(), &no), at(two(), &yes())]);
    let quoted = "Gateway infra/one (listener https) does not accept the route: NotAllowedByListeners: “because”; ask";
    assert_says(&refused, State::False, Reason::RouteRejected, quoted);
    let unresolved = [told("Accepted", "True", "Accepted"), told("ResolvedRefs", "False", "BackendNotFound")];
    let refused = verdict(vec![at(one(), &yes()), at(two(), &unresolved)]);
    assert_says(&refused, State::False, Reason::RouteRejected, "BackendNotFound");
    let elsewhere = json!({"name": "one", "namespace": "productivity", "sectionName": "https"});
    let verdict = verdict(vec![at(elsewhere, &yes()), at(two(), &yes())]);
    assert_says(&verdict, State::False, Reason::RoutePending, "infra/one");
}

#[test]
fn an_acceptance_does_not_count_after_its_gateway_is_gone() {
    let own = mk_exposure(json!([{"name": "one"}]), json!({"secretName": "s"}));
    let named = mk_exposure(json!([{"name": "one", "sectionName": "web"}]), json!({"terminatedByGateway": true}));
    let set = mk_view(json!({"conditions": [told("Accepted", "True", "Accepted")]}));
    let route = mk_view(json!({"parents": [
        at(json!({"kind": "ListenerSet", "name": "graph", "sectionName": "https"}), &yes()),
        at(json!({"name": "one", "sectionName": "web"}), &yes()),
    ]}));
    for exposure in [&own, &named] {
        let leading = Leading { route: Some(&route), listener_set: Some(&set), ..leading(exposure) };
        assert_eq!(exposed(leading).state, State::True);
        let verdict = exposed(Leading { absent: &["Gateway infra/one".to_owned()], ..leading });
        assert_says(&verdict, State::False, Reason::GatewayNotFound, "there is no Gateway infra/one, so nothing");
    }
}

#[test]
fn a_condition_about_an_older_spec_does_not_count() {
    let exposure = mk_exposure(json!([{"name": "one", "sectionName": "s"}]), json!({"terminatedByGateway": true}));
    let mut old = yes();
    old[0]["observedGeneration"] = json!(1);
    let route = mk_view(json!({"parents": [at(json!({"name": "one", "sectionName": "s"}), &old)]}));
    let verdict = exposed(Leading { route: Some(&route), ..leading(&exposure) });
    assert_says(&verdict, State::False, Reason::RoutePending, "has not reported");
}

#[test]
fn a_listener_of_the_servers_own_is_accepted_before_its_route_is() {
    let exposure = mk_exposure(json!([{"name": "one", "namespace": "infra"}]), json!({"secretName": "s"}));
    let route = mk_view(
        json!({"parents": [at(json!({"kind": "ListenerSet", "name": "graph", "sectionName": "https"}), &yes())]}),
    );
    let verdict = |set: Option<Value>| {
        let set = set.map(mk_view);
        exposed(Leading { route: Some(&route), listener_set: set.as_ref(), ..leading(&exposure) })
    };
    assert_says(&verdict(None), State::False, Reason::RoutePending, "Gateway infra/one has not reported");
    let good = json!({"conditions": [told("Accepted", "True", "Accepted")]});
    assert_says(&verdict(Some(good.clone())), State::True, Reason::RouteAccepted, "ListenerSet graph");
    let not_allowed = json!({"conditions": [told("Accepted", "False", "NotAllowed")]});
    assert_says(&verdict(Some(not_allowed)), State::False, Reason::ListenerRejected, "spec.allowedListeners");
    let mut secret = good;
    secret["listeners"] =
        json!([{"name": "https", "conditions": [told("ResolvedRefs", "False", "InvalidCertificateRef")]}]);
    assert_says(&verdict(Some(secret)), State::False, Reason::ListenerRejected, "check that the Secret");
}

#[test]
fn a_valid_certificate_is_ready_and_a_failed_renewal_is_reported() {
    let exposure = mk_exposure(json!([{"name": "one"}]), json!({"issuerRef": {"name": "ca"}}));
    let verdict = |status: Value| {
        let certificate = mk_view(status);
        certificate_ready(Leading { certificate: Some(&certificate), ..leading(&exposure) })
    };
    let valid = json!({"notAfter": "2027-01-01T00:00:00Z", "renewalTime": "2026-12-01T00:00:00Z",
                       "conditions": [told("Ready", "True", "Ready")]});
    assert_says(&verdict(valid.clone()), State::True, Reason::CertificateValid, "valid until 2027-01-01T00:00:00Z");
    let mut overdue = valid.clone();
    overdue["renewalTime"] = json!("2026-11-20T00:00:00Z");
    let silent = "its renewal is due and has not succeeded; see kubectl describe certificate";
    assert_says(&verdict(overdue.clone()), State::True, Reason::CertificateValid, silent);
    overdue["conditions"] = json!([told("Ready", "True", "Ready"), told("Issuing", "False", "Failed")]);
    assert_says(
        &verdict(overdue.clone()),
        State::True,
        Reason::CertificateValid,
        "renewal is due and has not succeeded (Failed: “because”)",
    );
    overdue["notAfter"] = json!("2026-11-25T12:00:00Z");
    assert_says(&verdict(overdue), State::False, Reason::CertificateExpired, "expired at 2026-11-25T12:00:00Z");
    let failed = json!({"conditions": [told("Ready", "False", "DoesNotExist"), told("Issuing", "False", "Denied")]});
    assert_says(&verdict(failed), State::False, Reason::CertificateFailed, "Denied: “because”");
    let issuing =
        json!({"conditions": [told("Ready", "False", "DoesNotExist"), told("Issuing", "True", "DoesNotExist")]});
    assert_says(&verdict(issuing), State::False, Reason::CertificatePending, "is issuing");
    assert_says(&verdict(json!({})), State::False, Reason::CertificatePending, "has not reported");
    // For another host, perhaps.
    let mut of_an_older_spec = valid;
    of_an_older_spec["conditions"][0]["observedGeneration"] = json!(1);
    assert_says(&verdict(of_an_older_spec), State::False, Reason::CertificatePending, "has not reported");
    let none = certificate_ready(leading(&exposure));
    assert_says(&none, State::False, Reason::CertificatePending, "has not reported");
}

#[test]
fn a_listener_without_a_certificate_waits_while_that_is_being_issued_and_is_rejected_if_it_is_not() {
    let exposure = mk_exposure(json!([{"name": "one"}]), json!({"issuerRef": {"name": "ca"}}));
    let said = |type_: &str, reason: &str| {
        let mut set = json!({"conditions": [told("Accepted", "False", "ListenersNotValid")]});
        set["listeners"] = json!([{"name": "https", "conditions": [told(type_, "False", reason)]}]);
        mk_view(set)
    };
    let verdict = |set: &ChildView, issuing: &str| {
        let conditions = [told("Ready", "False", "DoesNotExist"), told("Issuing", issuing, "DoesNotExist")];
        let certificate = mk_view(json!({"conditions": conditions}));
        exposed(Leading { listener_set: Some(set), certificate: Some(&certificate), ..leading(&exposure) })
    };
    let missing = said("ResolvedRefs", "InvalidCertificateRef");
    assert_says(&verdict(&missing, "True"), State::False, Reason::CertificatePending, "condition CertificateReady");
    assert_says(&verdict(&missing, "False"), State::False, Reason::ListenerRejected, "check that the Secret");
    let other = said("Accepted", "NotAllowed");
    assert_says(&verdict(&other, "True"), State::False, Reason::ListenerRejected, "NotAllowed");
}

#[test]
fn a_rejection_counts_once_its_possible_causes_are_settled() {
    let exposure = mk_exposure(json!([{"name": "one"}]), json!({"issuerRef": {"name": "ca"}}));
    let at = |time: &str, mut condition: Value| {
        condition["lastTransitionTime"] = json!(time);
        condition
    };
    let (old, new, skewed) = ("2026-11-25T11:59:49Z", "2026-11-25T11:59:51Z", "2026-11-25T12:00:20Z");
    let verdict = |issued: &str, rejected: &str| {
        let set = json!({"conditions": [at(rejected, told("Accepted", "False", "ListenersNotValid"))]});
        let certificate = json!({"notAfter": "2027-01-01T00:00:00Z",
                                 "conditions": [at(issued, told("Ready", "True", "Ready"))]});
        let (set, certificate) = (mk_view(set), mk_view(certificate));
        exposed(Leading { listener_set: Some(&set), certificate: Some(&certificate), ..leading(&exposure) })
    };
    for (issued, rejected) in [(new, old), (old, new), (new, new)] {
        assert_says(&verdict(issued, rejected), State::False, Reason::RoutePending, "wait a few seconds first");
    }
    for (issued, rejected) in [(old, old), (skewed, old)] {
        assert_says(&verdict(issued, rejected), State::False, Reason::ListenerRejected, "check that the Secret");
    }
}

#[test]
fn a_rejection_stays_one_while_another_parent_changes() {
    let exposure = mk_exposure(
        json!([{"name": "one", "sectionName": "a"}, {"name": "two", "sectionName": "b"}]),
        json!({"terminatedByGateway": true}),
    );
    let parent = |name: &str, section: &str, time: &str, status: &str| {
        let mut condition = told("Accepted", status, "Whatever");
        condition["lastTransitionTime"] = json!(time);
        json!({"parentRef": {"name": name, "sectionName": section}, "conditions": [condition]})
    };
    let parents = json!([
        parent("one", "a", "2026-11-25T11:00:00Z", "False"),
        parent("two", "b", "2026-11-25T11:59:59Z", "True")
    ]);
    let route = mk_view(json!({"parents": parents}));
    let verdict = exposed(Leading { route: Some(&route), ..leading(&exposure) });
    assert_says(&verdict, State::False, Reason::RouteRejected, "does not accept the route");
}
