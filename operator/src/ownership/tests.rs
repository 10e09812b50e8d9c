use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::DeserializeGuard;
use mcp_entra_crds::McpServerStatus;

use super::{claim_cache::ClaimView, from_manifests::standings, *};
use crate::objects::fixtures::mk_server;

/// A server that was created in that second, with its own host and client id.
fn mk(second: i64, namespace: &str, name: &str, change: impl FnOnce(&mut McpServer)) -> McpServer {
    let mut server = mk_server();
    server.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
    server.metadata.namespace = Some(namespace.into());
    server.metadata.name = Some(name.into());
    server.metadata.uid = Some(format!("{namespace}/{name}"));
    server.spec.exposure.as_mut().unwrap().host = format!("{name}.{namespace}.example");
    server.spec.entra.client_id = format!("{namespace}/{name}");
    change(&mut server);
    server
}

fn on(host: &str, path: &str) -> impl FnOnce(&mut McpServer) {
    move |server| {
        let exposure = server.spec.exposure.as_mut().unwrap();
        (exposure.host, exposure.path) = (host.into(), path.into());
    }
}

fn at_gateway(host: &str, path: &str, gateway: &str) -> impl FnOnce(&mut McpServer) {
    let exposure = serde_json::json!({"host": host, "path": path, "tls": {"issuerRef": {"name": "ca"}},
        "gateway": {"parentRefs": [{"name": gateway, "namespace": "infra"}]}});
    move |server| server.spec.exposure = Some(serde_json::from_value(exposure).unwrap())
}

fn of_app(audiences: &[&str], shared: bool) -> impl FnOnce(&mut McpServer) {
    move |server| {
        server.spec.entra.client_id = "app".into();
        server.spec.entra.audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        server.spec.entra.shared_client_id = shared;
    }
}

const ROOT: Standing = Standing::Held(Held { root: true, listener_of: None });
const BESIDE: Standing = Standing::Held(Held { root: false, listener_of: None });
const NO_HOST: Standing = Standing::Lost(Lost::Host { free_at: None });
const NO_PATH: Standing = Standing::Lost(Lost::Path { free_at: None });
const NO_CLIENT_ID: Standing = Standing::Lost(Lost::ClientId { free_at: None });

#[test]
fn manifests_are_judged_as_if_the_oldest_were_applied_first() {
    assert_eq!(standings(&[mk(1, "a", "one", |_| {}), mk(2, "b", "two", |_| {})]), [ROOT, ROOT]);
    let servers = [
        mk(3, "a", "late", on("h", "/late")),
        mk(1, "b", "first", on("h", "/mcp")),
        mk(2, "b", "next", on("h", "/n")),
        mk(4, "b", "below", on("h", "/mcp/below")),
    ];
    assert_eq!(standings(&servers), [NO_HOST, ROOT, BESIDE, NO_PATH]);
}

#[test]
fn a_client_id_or_audience_of_another_server_conflicts_in_either_field() {
    let victim = || mk(2, "a", "victim", of_app(&["api://custom"], false));
    for audience in ["app", "api://app", "API://APP/", "api://custom", "custom"] {
        let attacker = mk(3, "b", "attacker", |server| {
            server.spec.entra.audiences = vec![audience.into()];
            server.spec.entra.required_scopes = vec!["other.scope".into()];
        });
        assert_eq!(standings(&[victim(), attacker]), [ROOT, NO_CLIENT_ID], "{audience}");
    }
    let elsewhere = mk(3, "b", "other-tenant", |server| {
        of_app(&[], false)(server);
        server.spec.entra.tenant_id = "another".into();
    });
    assert_eq!(standings(&[victim(), elsewhere]), [ROOT, ROOT]);
}

#[test]
fn two_servers_of_a_namespace_share_a_client_id_if_both_opt_in() {
    let pair = |namespace: &str, one: bool, two: bool| {
        standings(&[mk(1, "a", "one", of_app(&[], one)), mk(2, namespace, "two", of_app(&[], two))])
    };
    assert_eq!(pair("a", true, true), [ROOT, ROOT]);
    for (namespace, one, two) in [("a", true, false), ("a", false, true), ("a", false, false), ("b", true, true)] {
        assert_eq!(pair(namespace, one, two), [ROOT, NO_CLIENT_ID], "{namespace} {one} {two}");
    }
}

#[test]
fn a_later_server_of_a_host_uses_the_first_listener_at_the_same_gateway() {
    let carrier = |servers: [McpServer; 3]| match &standings(&servers)[2] {
        Standing::Held(held) => held.listener_of.clone().map(|owner| owner.name),
        other => panic!("{other:?}"),
    };
    let last = || mk(3, "a", "last", at_gateway("h", "/last", "shared"));
    let first = || mk(1, "a", "first", at_gateway("h", "/first", "shared"));
    let next = || mk(2, "a", "next", at_gateway("h", "/next", "shared"));
    assert_eq!(carrier([first(), next(), last()]).as_deref(), Some("first"));
    // A server that is not served has no listener to share.
    let mut lost = next();
    lost.spec.exposure.as_mut().unwrap().path = "/first/below".into();
    assert_eq!(carrier([mk(1, "a", "first", on("h", "/first")), lost, last()]), None);
    let elsewhere = mk(1, "a", "first", at_gateway("h", "/first", "another"));
    assert_eq!(carrier([elsewhere, mk(2, "a", "next", at_gateway("i", "/next", "shared")), last()]), None);
}

#[test]
fn an_unreadable_or_misnamed_claim_gives_no_server_a_value() {
    let server = mk(1, "a", "one", |_| {});
    for (name, text) in [(None, "{}".to_owned()), (Some("claim-host-0"), String::new())] {
        let (claims, mut feeder) = Claims::empty("system");
        let host = demands(&server).remove(0);
        let Answer::Write(claim) = answer(None, &host, Duration::ZERO) else { panic!() };
        let mut object = claim_writer::object(&claim);
        object.metadata.namespace = Some("system".into());
        match name {
            Some(name) => object.metadata.name = Some(name.into()),
            None => object.data = Some(BTreeMap::from([("claim.json".to_owned(), text)])),
        }
        feeder.feed(kube::runtime::watcher::Event::Apply(ClaimView::from(object)));
        assert_eq!(standing(&claims, &|_, _| None, &server, Duration::ZERO), Standing::Open);
    }
}

/// A server as a version without claims left it.
fn mk_known(second: i64, namespace: &str, conditions: &[&str], suspend: bool) -> McpServer {
    let mut server = mk(second, namespace, "graph", on("h", "/mcp"));
    server.metadata.generation = Some(2);
    server.spec.suspend = suspend;
    let condition = |type_: &&str| Condition {
        type_: (*type_).to_owned(),
        status: "True".into(),
        observed_generation: Some(2),
        reason: String::new(),
        message: String::new(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    };
    let conditions = conditions.iter().map(condition).collect();
    server.status = Some(McpServerStatus { conditions, ..McpServerStatus::default() });
    server
}

#[test]
fn without_a_claim_holders_come_before_served_servers_and_these_before_older_ones() {
    let all = demands(&mk(1, "a", "graph", on("h", "/mcp")));
    let [host, audience] = all.as_slice() else { panic!("{all:?}") };
    let served = mk_known(9, "b", &["Accepted", "Programmed"], false);
    let parked = mk_known(1, "a", &["Accepted"], true);
    let waiting = mk_known(2, "c", &["Accepted"], false);
    let first_for = |demand: &Demand, one: (&McpServer, bool), other: (&McpServer, bool)| {
        let [one, other] = [one, other].map(|(server, is_live)| Contender { server, is_live });
        one.rank(demand) < other.rank(demand)
    };
    let first = |one: (&McpServer, bool), other: (&McpServer, bool)| {
        let [by_host, by_audience] = [host, audience].map(|demand| first_for(demand, one, other));
        assert_eq!(by_host, by_audience);
        by_host
    };
    assert!(first((&served, true), (&parked, false)), "age alone gives no precedence");
    assert!(first((&served, false), (&waiting, false)));
    assert!(first((&served, true), (&parked, true)), "anybody in the namespace can write a route");
    assert!(first((&parked, false), (&waiting, false)), "of two servers that are not served, the older comes first");
    let live = (&mk_known(9, "d", &["Accepted"], false), true);
    assert!(first_for(host, live, (&waiting, false)), "a route exists from this host");
    assert!(first_for(audience, (&waiting, false), live), "a route proves nothing about a client id");

    let mut holder = mk_known(9, "e", &["Accepted"], false);
    let (exposure, entra) = (holder.spec.exposure.clone().unwrap(), &holder.spec.entra);
    let ownership = mcp_entra_crds::Ownership {
        host: Some(exposure.host.to_uppercase()),
        path: Some(exposure.path),
        audiences: vec![format!("api://{}", entra.client_id)],
    };
    holder.status.as_mut().unwrap().ownership = Some(ownership);
    // All client ids differ, except the holder's own.
    let [_, own] = demands(&holder).try_into().unwrap();
    for demand in [host, &own] {
        assert!(first_for(demand, (&holder, false), (&served, true)), "{demand:?}");
    }
    assert!(first_for(audience, (&served, true), (&holder, false)), "it holds another");
    let mut edited = served.clone();
    edited.metadata.generation = Some(3);
    assert!(first((&waiting, false), (&edited, false)), "a condition about an older spec does not count");
    (holder.metadata.generation, holder.status.as_mut().unwrap().conditions) = (Some(3), Vec::new());
    assert!(first_for(&own, (&holder, false), (&waiting, false)), "a rejected edit does not displace the holder");
}

#[test]
fn no_server_waits_for_one_that_will_not_claim_the_value() {
    let all = demands(&mk(1, "a", "graph", on("h", "/mcp")));
    let [host, audience] = all.as_slice() else { panic!("{all:?}") };
    let accepted = mk_known(1, "a", &["Accepted"], false);
    let suspended = mk_known(1, "a", &["Accepted"], true);
    let refused = mk_known(1, "a", &[], false);
    let will = |server: &McpServer, is_live: bool| {
        let contender = Contender { server, is_live };
        [contender.will_claim(host), contender.will_claim(audience)]
    };
    assert_eq!(will(&accepted, false), [true, true]);
    for idle in [&suspended, &refused] {
        assert_eq!(will(idle, false), [false, false]);
        assert_eq!(will(idle, true), [true, false], "it keeps the host that has a route to it");
    }
    let mut leaving = accepted;
    leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(will(&leaving, true), [false, false]);
}

#[test]
fn a_changed_claim_triggers_the_servers_that_name_its_value_unless_a_server_only_joins() {
    use kube::runtime::{reflector, watcher::Event};
    let (servers, mut writer) = reflector::store();
    for server in [mk(1, "a", "one", on("h", "/one")), mk(2, "b", "two", on("h", "/two")), mk(3, "b", "else", |_| {})] {
        writer.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(server))));
    }
    let view = |holders: &[(&str, Option<i64>)]| {
        let mut claim: Option<Claim> = None;
        for (name, _) in holders {
            let demand = demands(&mk(1, "a", name, on("h", &format!("/{name}")))).remove(0);
            let Answer::Write(written) = answer(claim.as_ref(), &demand, Duration::ZERO) else { panic!() };
            claim = Some(written);
        }
        let mut claim = claim.unwrap();
        for (holder, (_, since)) in claim.holders.iter_mut().zip(holders) {
            holder.vacant_since = since.map(|since| Timestamp::from_second(since).unwrap());
        }
        Some(Arc::new(ClaimView::from(claim_writer::object(&claim))))
    };
    let concerned = |before, after| {
        let mut names: Vec<String> = claim_cache::concerned(&servers, &claim_cache::Change { before, after })
            .into_iter()
            .map(|found| found.name)
            .collect();
        names.sort();
        names
    };
    let one = || view(&[("one", None)]);
    assert!(concerned(one(), view(&[("one", None), ("three", None)])).is_empty());
    assert!(concerned(one(), one()).is_empty());
    assert!(concerned(None, one()).is_empty());
    assert_eq!(concerned(one(), view(&[("one", Some(5))])), ["one", "two"], "it says when it becomes free");
    assert_eq!(concerned(view(&[("one", None), ("three", None)]), one()), ["one", "two"]);
    assert_eq!(concerned(one(), None), ["one", "two"]);
}
