//! Tests of a mailbox's limit of four concurrent requests: they are shared fairly, and other requests do not wait for
//! them.

use std::pin::pin;

use entra_emulator::{Fault, FaultKind, Host, LoggedRequest, Matcher};
use futures::future::{Either, join_all, select};
use mcp_entra_policy::{CallerKind, GraphAccess, Subject};
use serde_json::{Value, json};

use crate::harness::{Setup, Site, eventually, grant, grant_to_readers, grant_to_sales};
use crate::tenant::{ALICE, BOB, ROLE, control};

/// A server for users and applications with the role, whose application has these permissions.
async fn site(permissions: &[&str]) -> Site {
    let mut setup = Setup::new();
    setup.configuration.graph.access = GraphAccess::Application;
    setup.configuration.probe.interval_seconds = 3600;
    let daemons = Subject::AppRole { role: ROLE.into(), callers: [CallerKind::Application].into() };
    setup.policy.grants = vec![grant_to_readers(&["*"]), grant("daemons", daemons, &["*"])];
    let server = setup.tenant.server;
    control()
        .change_tenant(setup.tenant.id, |directory| {
            let app = directory.apps.iter_mut().find(|app| app.client_id == server).unwrap();
            app.granted_graph_roles = permissions.iter().map(|role| (*role).to_owned()).collect();
            Ok(())
        })
        .unwrap();
    setup.start().await
}

/// Delays every further request for messages.
fn slow_mailboxes(site: &Site, milliseconds: u64) {
    slow(site, "/messages", 1000, milliseconds);
}

/// Delays a number of further requests whose path contains this.
fn slow(site: &Site, path: &str, times: u32, milliseconds: u64) {
    let matcher = Matcher {
        host: Some(Host::Graph),
        tenant: Some(site.setup.tenant.id),
        path: Some(path.to_owned()),
        ..Matcher::default()
    };
    control().inject(Fault { matcher, times, kind: FaultKind::Delay { milliseconds } }).unwrap();
}

fn daemon(site: &Site) -> String {
    let tenant = &site.setup.tenant;
    tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon))
}

fn alice_id(site: &Site) -> uuid::Uuid {
    control().change_tenant(site.setup.tenant.id, |directory| Ok(directory.find_user(ALICE).unwrap().oid)).unwrap()
}

async fn list(site: &Site, token: &str, arguments: Value) {
    let answer = site.call(token, "list_my_messages", arguments).await;
    let answer: Value = answer.json().await.unwrap();
    assert_ne!(answer["result"]["isError"], true, "{answer}");
    assert!(answer["result"]["structuredContent"].is_object(), "{answer}");
}

/// Returns the requests to Graph for messages so far.
fn of_messages(site: &Site) -> Vec<LoggedRequest> {
    let requests = site.setup.tenant.requests().into_iter();
    requests.filter(|request| request.host == Host::Graph && request.path.ends_with("/messages")).collect()
}

#[tokio::test]
async fn a_mailbox_gets_at_most_four_concurrent_requests_by_any_name_of_its_user() {
    let site = site(&["User.ReadBasic.All", "Mail.Read"]).await;
    let (daemon, alice, id) = (daemon(&site), site.setup.tenant.token(ALICE), alice_id(&site).to_string());
    // From here on both have their tokens, and the owner of each is known.
    list(&site, &daemon, json!({ "user": ALICE })).await;
    list(&site, &alice, json!({})).await;
    slow_mailboxes(&site, 100);
    let named = [ALICE.to_owned(), ALICE.to_uppercase(), id.clone(), id.to_uppercase()];
    let by_the_daemon = named.iter().map(|user| json!({ "user": user })).map(|arguments| (&daemon, arguments));
    let by_alice = std::iter::repeat_n((&alice, json!({})), 2);
    let calls: Vec<_> = by_the_daemon.chain(by_alice).cycle().take(18).collect();
    join_all(calls.into_iter().map(|(token, arguments)| list(&site, token, arguments))).await;
    let asked = of_messages(&site);
    assert_eq!(asked.len(), 20);
    assert_eq!(asked.iter().map(|request| request.concurrent).max(), Some(4));
}

#[tokio::test]
async fn a_name_without_a_user_in_graph_is_requested_once() {
    let site = site(&["Mail.Read"]).await;
    let daemon = daemon(&site);
    for user in [ALICE.to_owned(), ALICE.to_uppercase()] {
        list(&site, &daemon, json!({ "user": user })).await;
    }
    let asked: Vec<(String, u16)> = site
        .setup
        .tenant
        .requests()
        .into_iter()
        .filter(|request| request.host == Host::Graph)
        .map(|request| (request.path, request.status))
        .collect();
    let user = format!("/v1.0/users/{ALICE}");
    let messages = (format!("{user}/messages"), 200);
    assert_eq!(asked, [(user, 403), messages.clone(), messages]);
}

#[tokio::test]
async fn an_application_that_floods_a_mailbox_keeps_its_user_waiting_for_one_turn() {
    let site = site(&["Mail.Read"]).await;
    let (daemon, alice, id) = (daemon(&site), site.setup.tenant.token(ALICE), alice_id(&site));
    list(&site, &alice, json!({})).await;
    slow_mailboxes(&site, 300);
    let flood = join_all((0..40).map(|_| list(&site, &daemon, json!({ "user": id }))));
    let meanwhile = async {
        eventually("the flood is under way", async || (of_messages(&site).len() > 4).then_some(())).await;
        let before = of_messages(&site).len();
        list(&site, &alice, json!({})).await;
        before
    };
    let (_, before) = futures::join!(flood, meanwhile);
    let asked = of_messages(&site);
    let place = asked.iter().rposition(|request| request.user == Some(id)).unwrap();
    // Open requests, their successors, and a few while alice's call arrived.
    assert!(place < before + 16, "{place}, {before} before, of {}", asked.len());
}

/// A server whose tools are granted to the group Sales, with bob as a member.
async fn for_sales() -> Site {
    let mut setup = Setup::new();
    setup.configuration.rate_limit.per_user.requests = 1_000;
    setup.policy.grants = vec![grant_to_sales(&setup.tenant, &["*"])];
    setup.start().await
}

/// Calls with tokens that do not list bob's groups, until these are requested during this number of other requests.
async fn groups_are_looked_up(site: &Site, among: usize) {
    let tenant = &site.setup.tenant;
    let without_groups = || {
        let mut claims = tenant.claims(BOB);
        claims.as_object_mut().unwrap().remove("groups");
        claims["uti"] = json!(uuid::Uuid::new_v4());
        tenant.sign(&json!({}), &claims)
    };
    eventually("groups are requested while others wait", async || {
        assert_eq!(site.rpc(&without_groups(), "tools/list", json!({})).await.status(), 200);
        let of_groups = |request: &LoggedRequest| request.path.ends_with("/checkMemberGroups");
        tenant.requests().iter().any(|request| of_groups(request) && request.concurrent > among).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_to_the_directory_do_not_wait_for_a_mailbox() {
    let site = for_sales().await;
    let bob = site.setup.tenant.token(BOB);
    slow_mailboxes(&site, 60_000);
    let flood = join_all((0..8).map(|_| list(&site, &bob, json!({}))));
    match select(pin!(flood), pin!(groups_are_looked_up(&site, 4))).await {
        Either::Left(_) => panic!("the mailbox was not busy"),
        Either::Right(_) => {}
    }
}

#[tokio::test]
async fn requests_for_groups_do_not_wait_for_profiles() {
    let site = for_sales().await;
    let bob = site.setup.tenant.token(BOB);
    // Of matching faults, the earlier is used first: all requests except those for groups are slow, also when repeated.
    slow(&site, "/checkMemberGroups", 1000, 0);
    slow(&site, "/me", 1000, 60_000);
    let flood = join_all((0..40).map(|_| site.call(&bob, "get_user_details", json!({}))));
    match select(pin!(flood), pin!(groups_are_looked_up(&site, 32))).await {
        Either::Left(_) => panic!("the directory was not busy"),
        Either::Right(_) => {}
    }
}
