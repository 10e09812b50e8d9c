use super::*;
use crate::objects::fixtures::mk_server;

const GRACE: Duration = Duration::from_secs(600);
const TENANT: &str = "8f6b0000-0000-0000-0000-00000000000a";

/// A claim after a release by the grace period only.
fn release(claim: &Claim, presence: impl Fn(&Holder) -> Presence, now: Timestamp, grace: Duration) -> Released {
    super::release(claim, presence, |_| false, now, grace)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn on_host(namespace: &str, server: &str, path: &str) -> Demand {
    Demand {
        claimed: ClaimedValue::host("h.example"),
        namespace: namespace.into(),
        server: server.into(),
        path: Some(path.into()),
        shared: false,
    }
}

fn of_app(namespace: &str, server: &str, shared: bool) -> Demand {
    let claimed = ClaimedValue::audience(TENANT, "app");
    Demand { claimed, namespace: namespace.into(), server: server.into(), path: None, shared }
}

/// Returns the claim after these demands, all of which succeed.
fn claimed(demands: &[Demand]) -> Claim {
    let claim = demands.iter().fold(None, |claim: Option<Claim>, demand| match answer(claim.as_ref(), demand, GRACE) {
        Answer::Write(claim) => Some(claim),
        other => panic!("{demand:?}: {other:?}"),
    });
    claim.unwrap()
}

fn vacant(mut claim: Claim, since: i64) -> Claim {
    claim.holders.iter_mut().for_each(|holder| holder.vacant_since = Some(at(since)));
    claim
}

#[test]
fn the_first_claimant_holds_a_value_and_a_later_one_displaces_nothing() {
    let claim = claimed(&[on_host("b", "first", "/mcp")]);
    assert_eq!(answer(Some(&claim), &on_host("b", "first", "/mcp"), GRACE), Answer::Held);
    for (later, lost) in [
        (on_host("a", "first", "/other"), Lost::Host { free_at: None }),
        (on_host("a", "late", "/mcp"), Lost::Host { free_at: None }),
        (on_host("b", "late", "/mcp"), Lost::Path { free_at: None }),
        (on_host("b", "late", "/mcp/below"), Lost::Path { free_at: None }),
    ] {
        assert_eq!(answer(Some(&claim), &later, GRACE), Answer::Lost(lost), "{later:?}");
    }
    let claim = claimed(&[of_app("b", "first", true)]);
    for later in [of_app("a", "first", true), of_app("a", "late", true), of_app("b", "late", false)] {
        assert_eq!(answer(Some(&claim), &later, GRACE), Answer::Lost(Lost::ClientId { free_at: None }), "{later:?}");
    }
}

#[test]
fn servers_of_a_namespace_share_a_host_by_paths_that_do_not_overlap() {
    for (first, second, is_shared) in [
        ("/mcp", "/mcp", false),
        ("/mcp", "/mcp/x", false),
        ("/mcp/x", "/mcp", false),
        ("/a/token", "/a", false),
        ("/a", "/a/token", false),
        ("/mcp", "/mcpx", true),
        ("/mcp/x", "/mcp/y", true),
    ] {
        let claim = claimed(&[on_host("a", "first", first)]);
        let answer = answer(Some(&claim), &on_host("a", "second", second), GRACE);
        assert_eq!(matches!(answer, Answer::Write(_)), is_shared, "{first} {second}: {answer:?}");
    }
}

#[test]
fn a_server_that_names_another_path_is_the_last_to_claim_that_path() {
    let claim = claimed(&[on_host("a", "first", "/first"), on_host("a", "second", "/second")]);
    let moved = on_host("a", "first", "/second/below");
    assert_eq!(answer(Some(&claim), &moved, GRACE), Answer::Lost(Lost::Path { free_at: None }));
    let Answer::Write(claim) = answer(Some(&claim), &on_host("a", "first", "/third"), GRACE) else { panic!() };
    let paths: Vec<_> = claim.holders.iter().map(|holder| holder.path.as_deref().unwrap()).collect();
    assert_eq!(paths, ["/third", "/second"]);
}

#[test]
fn a_client_id_is_shared_in_a_namespace_only_if_all_its_servers_opt_in() {
    let both = claimed(&[of_app("a", "first", true), of_app("a", "second", true)]);
    assert_eq!(answer(Some(&both), &of_app("a", "second", true), GRACE), Answer::Held);
    assert_eq!(
        answer(Some(&both), &of_app("a", "third", false), GRACE),
        Answer::Lost(Lost::ClientId { free_at: None })
    );
    // The first claimant stops sharing: it keeps the value, and the other loses it.
    let Answer::Write(alone) = answer(Some(&both), &of_app("a", "first", false), GRACE) else { panic!() };
    assert_eq!(
        answer(Some(&alone), &of_app("a", "second", true), GRACE),
        Answer::Lost(Lost::ClientId { free_at: None })
    );
    assert_eq!(answer(Some(&alone), &of_app("a", "first", false), GRACE), Answer::Held);
}

#[test]
fn a_waiting_server_learns_when_a_value_becomes_free_once_all_holders_are_gone() {
    let claim = claimed(&[on_host("b", "one", "/one"), on_host("b", "two", "/two")]);
    let mut gone = vacant(claim.clone(), 1_000);
    gone.holders[1].vacant_since = Some(at(1_100));
    let lost = |claim: &Claim, demand: &Demand| answer(Some(claim), demand, GRACE);
    let free_at = Some(at(1_700));
    assert_eq!(lost(&gone, &on_host("a", "x", "/x")), Answer::Lost(Lost::Host { free_at }));
    assert_eq!(lost(&gone, &on_host("b", "x", "/one")), Answer::Lost(Lost::Path { free_at: Some(at(1_600)) }));
    gone.holders[1].vacant_since = None;
    assert_eq!(lost(&gone, &on_host("a", "x", "/x")), Answer::Lost(Lost::Host { free_at: None }));
    let message = Lost::Host { free_at }.message();
    assert!(
        message.ends_with("it becomes free at 1970-01-01T00:28:20Z unless the other server comes back"),
        "{message}"
    );
}

#[test]
fn a_server_that_comes_back_in_the_grace_period_holds_its_value_again() {
    let claim = vacant(claimed(&[on_host("a", "graph", "/mcp")]), 1_000);
    let Answer::Write(back) = answer(Some(&claim), &on_host("a", "graph", "/mcp"), GRACE) else { panic!() };
    assert_eq!(back.holders[0].vacant_since, None);
}

#[test]
fn holders_are_released_only_after_the_grace_period() {
    let claim = claimed(&[on_host("a", "gone", "/gone"), on_host("a", "stays", "/stays")]);
    let presence = |holder: &Holder| if holder.server == "gone" { Presence::Gone } else { Presence::Present };
    let Released::Changed(noted) = release(&claim, presence, at(1_000), GRACE) else { panic!() };
    assert_eq!(noted.holders[0].vacant_since, Some(at(1_000)));
    assert_eq!(release(&noted, presence, at(1_599), GRACE), Released::Unchanged);
    let Released::Changed(freed) = release(&noted, presence, at(1_600), GRACE) else { panic!() };
    assert_eq!(freed.holders.len(), 1);
    assert_eq!(release(&noted, |_| Presence::Gone, at(1_600), GRACE), {
        let mut rest = claim.clone();
        rest.holders.remove(0);
        rest.holders[0].vacant_since = Some(at(1_600));
        Released::Changed(rest)
    });
    assert_eq!(release(&vacant(claim.clone(), 1_000), |_| Presence::Gone, at(1_600), GRACE), Released::Empty);
    assert_eq!(release(&claim, |_| Presence::Present, at(9_000), GRACE), Released::Unchanged);
}

#[test]
fn a_vacant_value_that_is_one_too_many_is_released_at_once_and_a_held_one_is_not() {
    let claim = claimed(&[on_host("a", "graph", "/mcp")]);
    let release = |claim: &Claim, presence| super::release(claim, |_| presence, |_| true, at(1_001), GRACE);
    assert_eq!(release(&vacant(claim.clone(), 1_000), Presence::Gone), Released::Empty);
    for presence in [Presence::Present, Presence::Leaving] {
        assert_eq!(release(&claim, presence), Released::Unchanged);
        assert_eq!(release(&vacant(claim.clone(), 1_000), presence), Released::Changed(claim.clone()));
    }
}

#[test]
fn a_value_is_kept_while_its_server_is_leaving() {
    let claim = claimed(&[on_host("a", "graph", "/mcp")]);
    assert_eq!(release(&claim, |_| Presence::Leaving, at(9_000), GRACE), Released::Unchanged);
    let Released::Changed(again) = release(&vacant(claim, 1_000), |_| Presence::Leaving, at(9_000), GRACE) else {
        panic!()
    };
    assert_eq!(again.holders[0].vacant_since, None, "the grace period starts when it is gone");
}

#[test]
fn every_spelling_of_a_host_or_an_audience_is_one_claim_and_other_values_are_others() {
    let audience = |text: &str| ClaimedValue::audience(TENANT, text).object_name();
    for spelling in ["api://App", "APP", "app/", "api://app//"] {
        assert_eq!(audience(spelling), audience("app"), "{spelling}");
    }
    assert_eq!(ClaimedValue::host("H.example"), ClaimedValue::host("h.example"));
    let others = [
        audience("app"),
        audience("apps"),
        audience("https://app"),
        ClaimedValue::audience("other", "app").object_name(),
        ClaimedValue::host("app").object_name(),
        ClaimedValue::host(&format!("{TENANT}/app")).object_name(),
    ];
    assert_eq!(others.iter().collect::<std::collections::HashSet<_>>().len(), others.len());
    assert!(others.iter().all(|name| name.len() <= 63), "{others:?}");
}

#[test]
fn a_server_asks_for_its_host_its_client_id_and_each_audience_once() {
    let mut server = mk_server();
    let client_id = server.spec.entra.client_id.clone();
    server.spec.entra.audiences = vec![format!("api://{client_id}"), "api://another".into()];
    server.spec.entra.shared_client_id = true;
    let asked = demands(&server);
    let kinds: Vec<ClaimKind> = asked.iter().map(|demand| demand.claimed.kind).collect();
    assert_eq!(kinds, [ClaimKind::Host, ClaimKind::Audience, ClaimKind::Audience]);
    assert_eq!(asked.iter().map(|demand| demand.shared).collect::<Vec<_>>(), [false, true, true]);
    server.spec.exposure = None;
    assert!(demands(&server).iter().all(|demand| demand.claimed.kind == ClaimKind::Audience));
}

#[test]
fn a_claim_that_was_written_reads_the_same() {
    let claim = vacant(claimed(&[on_host("a", "one", "/one"), on_host("a", "two", "/two")]), 1_000);
    let text = serde_json::to_string_pretty(&claim).unwrap();
    assert_eq!(serde_json::from_str::<Claim>(&text).unwrap(), claim);
    assert!(serde_json::from_str::<Claim>(&text.replace("holders", "others")).is_err());
}
